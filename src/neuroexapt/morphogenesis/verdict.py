"""Whether an edit stays: by its measured gain against what happened without it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a trial.

    Attributes:
        accepted: Whether the edit stays.
        gain: Control loss minus trial loss on the validation split.
        reason: Why, in words.
    """

    accepted: bool
    gain: float
    reason: str


def judge(control_loss: float, trial_loss: float, min_gain: float) -> Verdict:
    """Compares a trial with its control: the same epochs from the same state on the same batches, without the edit."""
    if not math.isfinite(trial_loss):
        return Verdict(False, -math.inf, "the loss of the trial is not finite")
    gain = control_loss - trial_loss if math.isfinite(control_loss) else math.inf
    if gain > min_gain:
        return Verdict(True, gain, f"gain {gain:.4f} is more than the {min_gain:g} asked for")
    return Verdict(False, gain, f"gain {gain:.4f} is not more than the {min_gain:g} asked for")
