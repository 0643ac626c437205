"""Places where an edit failed, and for how long they are left alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

MAX_PLACES = 4096  # remembered; of more, those whose ban ends first are forgotten
FORGOTTEN = 0.05  # failures: fewer would lengthen the next ban by less than 4 %
MAX_FAILURES = 32.0  # 2 to that many ban_epochs is for good


@dataclass(frozen=True, slots=True)
class Ban:
    """What is remembered of one place.

    Attributes:
        failures: Their number when the latest came, with what had decayed by then.
        until: Position at which the ban ends, epochs.
    """

    failures: float
    until: float

    def failures_at(self, position: float, ban_epochs: float) -> float:
        """Returns what is left of the failures at a position; they halve with every ``ban_epochs`` of freedom."""
        return self.failures * math.exp2(-max(position - self.until, 0.0) / ban_epochs)


@dataclass(slots=True)
class Bans:
    """Bans of places, which double with every failure and are forgotten with time.

    The n-th failure in a row bans a place for ``ban_epochs * 2^(n - 1)``. While it is free and does not fail, n halves
    with every ``ban_epochs``; under a ban it could not have failed, so that time does not count.

    Memory: two numbers for each of at most ``MAX_PLACES`` places.
    """

    places: dict[str, Ban] = field(default_factory=dict)

    def fail(self, place: str, position: float, ban_epochs: float) -> None:
        """Bans a place whose edit was rolled back or refused at a position, epochs; for 0 ``ban_epochs``, none."""
        if ban_epochs <= 0:
            return
        known = {other: ban for other, ban in self.places.items() if ban.failures_at(position, ban_epochs) >= FORGOTTEN}
        before = known[place].failures_at(position, ban_epochs) if place in known else 0.0
        failures = min(before + 1, MAX_FAILURES)
        known[place] = Ban(failures, position + ban_epochs * 2 ** (failures - 1))
        self.places = dict(sorted(known.items(), key=lambda item: item[1].until)[-MAX_PLACES:])

    def succeed(self, place: str) -> None:
        """Forgets the failures of a place whose edit was kept."""
        self.places.pop(place, None)

    def is_banned(self, place: str, position: float) -> bool:
        """Whether a place is to be left alone at a position, epochs."""
        return place in self.places and position < self.places[place].until

    def to_json(self) -> dict[str, Any]:
        """Returns everything as a JSON-ready dictionary."""
        return {place: asdict(ban) for place, ban in self.places.items()}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Bans:
        """Rebuilds what ``to_json`` returned."""
        return Bans({place: Ban(**ban) for place, ban in record.items()})
