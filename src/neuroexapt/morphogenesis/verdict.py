"""Whether an edit stays: by its measured gain, what it costs and how sure that is.

A trial and its control end on the same validation samples, so the losses are compared sample by sample: what is hard
for both cancels, and the standard error of the difference is far below that of either mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from neuroexapt.analysis.estimators.intervals import standard_error, t_quantile
from neuroexapt.config import MorphogenesisConfig
from neuroexapt.errors import InputError


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a trial.

    Attributes:
        accepted: Whether the edit stays.
        gain: Mean loss of the control minus that of the trial, nats.
        relative_gain: The gain as a fraction of the control's loss.
        low: Lower end of the 95 % interval of ``relative_gain``; itself where only means are known.
        high: Upper end.
        cost: Of the edit, as ``cost_of`` says.
        net_gain: ``relative_gain`` without what the cost has to be worth: what policies learn from.
        reason: Why, in words.
        needed: ``relative_gain`` has to be more than this: for what the edit costs and how unsure its gain is.
    """

    accepted: bool
    gain: float
    relative_gain: float
    low: float
    high: float
    cost: float
    net_gain: float
    reason: str
    needed: float = math.nan

    @staticmethod
    def failed(reason: str) -> Verdict:
        """Returns the verdict on edits that were not measured, because they or their trial failed."""
        return _unmeasured(False, math.nan, math.nan, reason)

    @staticmethod
    def untried(cost: float, *, is_exact: bool) -> Verdict:
        """Returns the verdict without a trial: what changes the function is not kept unmeasured."""
        reason = "the function is unchanged; not tried" if is_exact else "it changes the function and needs a trial"
        return _unmeasured(is_exact, math.nan, cost, reason)


def cost_of(flops_ratio: float, parameter_ratio: float) -> float:
    """Returns half the logarithm of each ratio, new over old (> 0): 1 for e times the network, negative for less."""
    return 0.5 * math.log(flops_ratio) + 0.5 * math.log(parameter_ratio)


def judge(control: Tensor | float, trial: Tensor | float, cost: float, config: MorphogenesisConfig) -> Verdict:
    """Compares a trial with its control: the same steps from the same state on the same batches, without the edit.

    With ``g`` the relative gain and ``s`` its standard error, the edit stays if
    ``g - cost_weight * cost - risk_aversion * s > min_gain``. Where no edit gains anything, at ``cost`` and
    ``min_gain`` 0, it is kept wrongly with the upper tail of Student's t at ``risk_aversion``: 16 % at 1, 5 % at 1.65.
    ``s`` is that of a ratio of means (Cochran 1977, eq. 6.13): of the residuals ``control_i - trial_i - g control_i``.

    Args:
        control: Losses of the validation samples without the edit, ``[n]``, or their mean.
        trial: Those with the edit, of the same samples in the same order, or their mean.
        cost: Of the edit, as ``cost_of`` says.
        config: What is asked for.

    Raises:
        InputError: The two are of different numbers of samples.
    """
    if not math.isfinite(after := _mean(trial)):
        return _unmeasured(False, -math.inf, cost, "the loss of the trial is not finite")
    if not math.isfinite(before := _mean(control)):
        return _unmeasured(True, math.inf, cost, "the loss of the control is not finite and that of the trial is")
    gain = before - after
    relative = gain / abs(before) if before else math.copysign(math.inf, gain) if gain else 0.0
    spread, reach = _spread(control, trial, gain, before)
    needed = config.min_gain + config.cost_weight * cost + config.risk_aversion * spread
    accepted = relative > needed
    low, high = relative - reach, relative + reach
    interval = f" ({100 * low:.2f} to {100 * high:.2f})" if reach else ""
    reason = f"a gain of {100 * relative:.2f} %{interval}, {'' if accepted else 'not '}more than {100 * needed:.2f} %"
    return Verdict(accepted, gain, relative, low, high, cost, relative - config.cost_weight * cost, reason, needed)


def _mean(losses: Tensor | float) -> float:
    return float(losses.detach().cpu().double().mean()) if isinstance(losses, Tensor) else losses


def _unmeasured(accepted: bool, gain: float, cost: float, reason: str) -> Verdict:
    return Verdict(accepted, gain, gain, gain, gain, cost, gain, reason)


def _spread(control: Tensor | float, trial: Tensor | float, gain: float, before: float) -> tuple[float, float]:
    """Returns the standard error of the relative gain and half of its 95 % interval; 0 where only means are known."""
    if not isinstance(control, Tensor) or not isinstance(trial, Tensor):
        return 0.0, 0.0
    if control.shape != trial.shape:
        raise InputError(
            f"verdict: found losses of shape {list(control.shape)} and {list(trial.shape)}, needed those of the same "
            "samples. Let `validate` return one loss for every validation sample, always in one order."
        )
    if control.numel() < 2 or not before:
        return 0.0, 0.0
    plain, edited = control.detach().cpu().double().flatten(), trial.detach().cpu().double().flatten()
    spread = standard_error(plain - edited - gain / before * plain) / abs(before)
    return spread, t_quantile(len(plain) - 1) * spread
