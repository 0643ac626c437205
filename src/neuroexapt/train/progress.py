"""Where a run stands; goes back with the model when a trial begins or is undone."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Progress:
    """Counters and latest metrics on the line that counts.

    Attributes:
        epoch: Epochs behind us.
        step: Batches of the next one behind us.
        train_loss_sum: Over the samples of these batches that were trained on.
        num_samples: Their number.
        validation_loss: After the latest epoch, nats.
        validation_accuracy: Likewise, in [0, 1].
    """

    epoch: int = 0
    step: int = 0
    train_loss_sum: float = 0.0
    num_samples: int = 0
    validation_loss: float = math.inf
    validation_accuracy: float = 0.0

    @property
    def position(self) -> tuple[int, int]:
        """Epochs, and batches of the next one, behind us."""
        return self.epoch, self.step

    @property
    def train_loss(self) -> float:
        """Mean training loss of this epoch so far."""
        return self.train_loss_sum / max(self.num_samples, 1)

    def add_batch(self, loss: float, num_samples: int) -> None:
        """Notes the training loss of a batch that was applied."""
        self.train_loss_sum += loss * num_samples
        self.num_samples += num_samples

    def end_epoch(self, validation_loss: float, validation_accuracy: float) -> None:
        """Moves on to the beginning of the next epoch."""
        self.load_state_dict(asdict(Progress(self.epoch + 1, 0, 0.0, 0, validation_loss, validation_accuracy)))

    def state_dict(self) -> dict[str, Any]:
        """Returns everything as a JSON-ready dictionary."""
        return asdict(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes a state over."""
        for key, value in state_dict.items():
            setattr(self, key, value)


@dataclass(frozen=True, slots=True)
class Best:
    """The checkpoint that validation chose so far; at first none, which any beats.

    Attributes:
        checkpoint: Name of its directory in the store.
        epoch: When it was.
        validation_loss: Then.
        validation_accuracy: Then.
    """

    checkpoint: str = ""
    epoch: int = 0
    validation_loss: float = math.inf
    validation_accuracy: float = -1.0

    @staticmethod
    def of(checkpoint: str, progress: Progress) -> Best:
        """Returns the present model as the best one."""
        return Best(checkpoint, progress.epoch, progress.validation_loss, progress.validation_accuracy)

    def is_beaten_by(self, progress: Progress) -> bool:
        """Whether the present model is better: higher accuracy, or the same with a lower loss."""
        return (progress.validation_accuracy, -progress.validation_loss) > (
            self.validation_accuracy,
            -self.validation_loss,
        )
