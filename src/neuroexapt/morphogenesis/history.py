"""What the engine remembers of a run: enough for triggers, bans and predictions, and no more.

Memory: the losses of the last ``MAX_LOSSES`` epochs, one number per kind, one per banned place.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

MAX_LOSSES = 256


@dataclass
class History:
    """Counters and measured outcomes; goes into a checkpoint as JSON.

    Attributes:
        epoch: Epochs behind us on the line that counts.
        losses: Validation losses of the latest of them; one that is not a number counts as infinite.
        num_steps: Optimizer steps of the latest epoch.
        last_event: Epoch at which the latest trial ended, 0 for none.
        num_accepted: Edits that were kept.
        num_rolled_back: Edits that were undone.
        banned_until: ``kind@place`` to the epoch until which it is not proposed again.
        edits_at: ``kind@place`` to the number of edits kept there.
        training_flops: FLOPs of training, discarded arms included, since candidates were last scored.
        calibration: Kind to (sum of measured over predicted gains, number of them); the prior counts as one of 1.
    """

    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    num_steps: int = 0
    last_event: int = 0
    num_accepted: int = 0
    num_rolled_back: int = 0
    banned_until: dict[str, int] = field(default_factory=dict)
    edits_at: dict[str, int] = field(default_factory=dict)
    training_flops: int = 0
    calibration: dict[str, list[float]] = field(default_factory=dict)

    def add_loss(self, loss: float) -> None:
        """Notes the validation loss of one more epoch."""
        self.epoch += 1
        self.losses = [*self.losses, math.inf if math.isnan(loss) else loss][-MAX_LOSSES:]

    def is_banned(self, place: str) -> bool:
        """Whether an edit failed here not long ago."""
        return self.epoch < self.banned_until.get(place, 0)

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
        return asdict(self)
