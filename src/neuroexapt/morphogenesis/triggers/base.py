"""The contract of a trigger: from a moment of a run to a reason for an event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from neuroexapt.config import MorphogenesisConfig

ROUNDING = 1e-9  # epochs: positions are sums of fractions


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a trigger may know.

    Attributes:
        config: What was asked for.
        position: Epochs behind us on the line that counts, in fractions.
        at_epoch_end: Whether an epoch has just ended; only then is the latest loss new.
        losses: Validation loss after each whole epoch, latest last; infinite where it was not a number.
        last_event: Position at which the latest event ended, 0 for none.
        num_events: Events ended so far: kept, rolled back, or without a candidate.
        highest_need: Returns the highest need for any kind that is on, a percentile in [0, 1]; measured when asked,
            for FLOPs.
        strictness: Of the trigger that is asked, 1 at first; ``why_now`` puts it in.
    """

    config: MorphogenesisConfig
    position: float
    at_epoch_end: bool
    losses: Sequence[float]
    last_event: float
    num_events: int
    highest_need: Callable[[], float]
    strictness: float = 1.0

    def has_passed(self, epochs: float) -> bool:
        """Whether so many epochs have passed since the latest event ended, or since the beginning."""
        return self.position - self.last_event >= epochs - ROUNDING


Trigger = Callable[[Moment], str]
"""Returns why there should be an event now, in words, or ``""``."""
