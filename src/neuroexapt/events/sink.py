"""Where events go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from neuroexapt.events.facts import Event


class EventSink(Protocol):
    """Takes events in order. A sink never raises for what an event says and never blocks training for long."""

    def send(self, event: Event) -> None:
        """Takes one event."""

    def rewind(self, num_events: int) -> None:
        """Forgets everything after the first ``num_events`` events: a resumed run tells them again."""


class FanOut:
    """Sends each event to several sinks and counts them. Memory: the list of sinks."""

    def __init__(self, sinks: Sequence[EventSink] = ()) -> None:
        self._sinks = tuple(sinks)
        self.num_sent = 0

    def send(self, event: Event) -> None:
        """Takes one event."""
        self.num_sent += 1
        for sink in self._sinks:
            sink.send(event)

    def rewind(self, num_events: int) -> None:
        """Forgets everything after the first ``num_events`` events, in every sink."""
        self.num_sent = num_events
        for sink in self._sinks:
            sink.rewind(num_events)
