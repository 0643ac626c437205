"""A trial under way: the same steps from the same state, first without the edits (the control), then with them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from neuroexapt.morphogenesis.averaging import WeightAverage
from neuroexapt.morphogenesis.proposal import Proposal
from neuroexapt.morphogenesis.snapshot import Snapshot


@dataclass(slots=True)
class Arm:
    """What one side of a trial did.

    Attributes:
        num_steps: Optimizer steps so far.
        flops: What they took.
        seconds: Likewise.
        is_finite: Whether every training loss was a number.
        epoch_losses: Validation losses of the epochs that ended in it.
        end: Steps of the run behind it when it ended.
        losses: On the validation split at its end: one per sample, or their mean.
        average: Of the weights over its second half.
    """

    num_steps: int = 0
    flops: int = 0
    seconds: float = 0.0
    is_finite: bool = True
    epoch_losses: list[float | None] = field(default_factory=list)
    end: int = 0
    losses: Tensor | float = math.nan
    average: WeightAverage = field(default_factory=WeightAverage)

    def add_step(self, loss: float, flops: int, seconds: float) -> None:
        """Counts one optimizer step."""
        self.num_steps += 1
        self.flops += flops
        self.seconds += seconds
        self.is_finite = self.is_finite and math.isfinite(loss)

    @property
    def mean_loss(self) -> float:
        """Mean validation loss at its end."""
        return float(self.losses.double().mean()) if isinstance(self.losses, Tensor) else self.losses


@dataclass(slots=True)
class Trial:
    """One event under way.

    Memory: one snapshot, two while the control hands over, one average, the patches, and two rows of losses.

    Attributes:
        proposal: What is tried.
        num_steps: Of either arm.
        back_to: Where both arms begin; once the edits are made, the end of the control.
        began_at: Steps of the run behind it.
        control: Without the edits.
        trial: With them, once they are made.
        cost: Of the model with the edits, relative to that without; see ``cost_of``.
    """

    proposal: Proposal
    num_steps: int
    back_to: Snapshot
    began_at: int
    control: Arm = field(default_factory=Arm)
    trial: Arm | None = None
    cost: float = 0.0

    @property
    def arm(self) -> Arm:
        """The one that runs."""
        return self.control if self.trial is None else self.trial

    @property
    def is_in_second_half(self) -> bool:
        """Whether the latest step belongs to what is averaged."""
        return 2 * self.arm.num_steps > self.num_steps

    @property
    def is_arm_over(self) -> bool:
        """Whether it has had its steps."""
        return self.arm.num_steps >= self.num_steps
