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
    """Compares a trial with its control: the same epochs from the same state on the same batches, without the edit.

    Args:
        control_loss: Validation loss without the edit.
        trial_loss: Validation loss with it.
        min_gain: Least gain that keeps it, as a fraction of ``control_loss``.
    """
    if not math.isfinite(trial_loss):
        return Verdict(False, -math.inf, "the loss of the trial is not finite")
    gain = control_loss - trial_loss if math.isfinite(control_loss) else math.inf
    needed = min_gain * abs(control_loss) if math.isfinite(control_loss) else 0.0
    if gain > needed:
        return Verdict(True, gain, f"more than the {needed:.4f} asked for")
    return Verdict(False, gain, f"not more than the {needed:.4f} asked for")
