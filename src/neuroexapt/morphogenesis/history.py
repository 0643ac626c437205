"""What the engine remembers of a run: enough for triggers, bans and predictions, and no more.

Memory: the losses of the last ``MAX_LOSSES`` epochs, one number per kind and per trigger, and a bounded number of bans.
"""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from neuroexapt.morphogenesis.bans import Bans

logger = logging.getLogger(__name__)

MAX_LOSSES = 256
MISCOUNT = 2  # a first epoch may lack steps: batches that were skipped, or those before a resume


@dataclass
class History:
    """Counters and measured outcomes; goes into a checkpoint as JSON.

    Attributes:
        epoch: Epochs that ended on the line that counts.
        num_steps: Optimizer steps behind us on that line.
        steps_per_epoch: 0 as long as that is not known.
        losses: Validation losses of the latest epochs; one that is not a number counts as infinite.
        last_event: Position, in fractions of epochs, at which the latest event ended; 0 for none.
        num_accepted: Events whose edits were kept.
        num_rolled_back: Events whose edits were undone.
        num_empty: Events that found no admissible candidate.
        waits_for: Forward FLOPs per sample with the cheapest edit, where that cost too much; 0 where none did.
        bans: Places that are left alone for a while.
        edits_at: ``kind@place`` to the number of edits kept there.
        unscored_flops: FLOPs of training since candidates were last scored.
        calibration: Kind to (sum of measured over predicted gains, number of them); the prior counts as one of 1.
        strictness: Of every trigger that led to an event.
    """

    epoch: int = 0
    num_steps: int = 0
    steps_per_epoch: int = 0
    losses: list[float] = field(default_factory=list)
    last_event: float = 0.0
    num_accepted: int = 0
    num_rolled_back: int = 0
    num_empty: int = 0
    waits_for: int = 0
    bans: Bans = field(default_factory=Bans)
    edits_at: dict[str, int] = field(default_factory=dict)
    unscored_flops: int = 0
    calibration: dict[str, list[float]] = field(default_factory=dict)
    strictness: dict[str, float] = field(default_factory=dict)

    @property
    def position(self) -> float:
        """Epochs behind us on that line, in fractions."""
        return max(self.num_steps / self.steps_per_epoch if self.steps_per_epoch else 0.0, float(self.epoch))

    @property
    def num_events(self) -> int:
        """Events that have ended."""
        return self.num_accepted + self.num_rolled_back + self.num_empty

    def add_epoch(self, loss: float | None) -> None:
        """Notes one more epoch and its validation loss, where it is known."""
        self.epoch += 1
        if loss is not None:
            self.losses = [*self.losses, math.inf if math.isnan(loss) else loss][-MAX_LOSSES:]

    def count_steps(self) -> None:
        """Finds the steps of an epoch at the end of the first one, or checks what was said; no trial matters yet."""
        counted, said = self.num_steps, self.steps_per_epoch
        if self.epoch or not counted:
            return
        if said and not self.num_events and not said / MISCOUNT <= counted <= said * MISCOUNT:
            logger.warning("steps_per_epoch: found %d steps in the first epoch where %d were said", counted, said)
            self.steps_per_epoch = counted
        self.steps_per_epoch = self.steps_per_epoch or counted

    def factor(self, kind: str) -> float:
        """How much measured gain one unit of predicted gain has brought so far, for this kind."""
        total, count = self.calibration.get(kind, [1.0, 1.0])
        return total / count

    def learn(self, kind: str, raw_prediction: float, measured: float) -> None:
        """Takes one outcome into the calibration; a loss counts as no gain."""
        if raw_prediction > 0:
            total, count = self.calibration.get(kind, [1.0, 1.0])
            self.calibration[kind] = [total + max(measured, 0.0) / raw_prediction, count + 1]

    def to_json(self) -> dict[str, Any]:
        """Returns everything as a JSON-ready dictionary."""
        return asdict(self) | {"bans": self.bans.to_json()}

    def load(self, record: dict[str, Any]) -> None:
        """Takes over what ``to_json`` returned, also that of an earlier version, which lacks some entries."""
        for name in {f.name for f in fields(self)} & record.keys() - {"bans"}:
            setattr(self, name, record[name])
        self.bans = Bans.from_json(record.get("bans", {}))
