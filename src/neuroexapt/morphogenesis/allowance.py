"""What deciding may cost: one allowance, a fraction of the run's FLOPs, that scores, needs and trials share."""

from __future__ import annotations

import math

from neuroexapt.config import MorphogenesisConfig
from neuroexapt.morphogenesis.history import History
from neuroexapt.morphogenesis.ledger import Ledger

OBSERVATIONS = 8  # forward passes on the probe batch per edit at most: modes, before and after, and the self-test
VALIDATIONS = 2  # of a trial: at the end of either arm


class Allowance:
    """How long a trial may be for what is left of ``overhead_fraction``.

    A trial costs one arm, the one that is given up, two looks at the validation split, and surgery.

    Args:
        config: Its limits.
        batch_size: Samples in one training step.
        num_probes: Samples that an edit is verified on.
        epochs: Of the whole run, where they are known.
        num_validation: Samples of a validation.
        by_step: Whether an arm can end at any step, or only with an epoch.
    """

    def __init__(
        self,
        config: MorphogenesisConfig,
        batch_size: int,
        num_probes: int,
        epochs: int | None,
        num_validation: int,
        *,
        by_step: bool,
    ) -> None:
        self._config, self._batch_size, self._epochs, self._by_step = config, batch_size, epochs, by_step
        self._num_probes, self.num_validation = num_probes, num_validation

    def step_flops(self, flops_per_sample: int, num_samples: int | None = None) -> int:
        """Returns what an optimizer step takes: a forward, and twice as much backward."""
        return 3 * (num_samples or self._batch_size) * flops_per_sample

    def left(self, ledger: Ledger, history: History, flops: int) -> float:
        """Returns the FLOPs that may still be spent on deciding, below 0 where the last trial took more.

        They are a fraction of what training takes in the whole run: what it has taken, and, where the number of epochs
        is known, what is to come with the network as it is.
        """
        if self._config.overhead_fraction is None:
            return math.inf
        to_come = self._steps_left(history) * self.step_flops(flops) if self._epochs is not None else 0.0
        return self._config.overhead_fraction * (ledger.flops["training"] + to_come) - ledger.overhead_flops

    def least(self, history: History, flops: int) -> float:
        """Returns what the shortest trial takes, of a model with so many forward FLOPs per sample."""
        if not self._config.trial_epochs:
            return self._fixed(flops)
        return self._fixed(flops) + self._least_steps(history) * self.step_flops(flops)

    def spare(self, ledger: Ledger, history: History, flops: int) -> float:
        """Returns what may be spent before a trial, so that the shortest one is still affordable."""
        return self.left(ledger, history, flops) - self.least(history, flops)

    def admits(self, ledger: Ledger, history: History, flops: int) -> bool:
        """Whether the shortest trial of what the latest event had to wait for is affordable, and can still end."""
        is_known = history.steps_per_epoch and self._steps_left(history) >= self._least_steps(history)
        if self._config.trial_epochs and not is_known:
            return False
        return self.left(ledger, history, flops) >= self.least(history, max(flops, history.waits_for))

    def steps(
        self, ledger: Ledger, history: History, flops: int, flops_after: int, *, is_free: bool = False
    ) -> int | None:
        """Returns the length of a trial, 0 for an edit that is made untried, ``None`` where there has to be more left.

        Args:
            ledger: What has been spent.
            history: Where the run stands.
            flops: Forward FLOPs per sample of the model.
            flops_after: Likewise, with the edits.
            is_free: Whether the allowance does not matter, because somebody asked for this trial.
        """
        if not self._config.trial_epochs:
            return 0
        dearer = max(flops, flops_after)
        most = min(self._longest(history), self._steps_left(history))
        if not is_free:
            affordable = self.left(ledger, history, flops) - self._fixed(dearer)
            most = min(most, affordable / self.step_flops(dearer))
        if not self._by_step and history.steps_per_epoch:
            most -= most % history.steps_per_epoch
        return int(most) if most >= self._least_steps(history) else None

    def _fixed(self, flops: int) -> int:
        """Returns what an event takes besides its steps: surgery, at most, and looks at validation data."""
        looks = VALIDATIONS * self.num_validation if self._by_step and self._config.trial_epochs else 0
        return (OBSERVATIONS * self._num_probes * self._config.edits_per_event + looks) * flops

    def _longest(self, history: History) -> float:
        steps = self._config.trial_epochs * max(history.steps_per_epoch, 1)
        return max(steps, 1.0) if self._by_step else max(math.ceil(steps), 1.0)

    def _least_steps(self, history: History) -> float:
        if not self._by_step:
            return max(history.steps_per_epoch, 1)
        return min(self._config.min_trial_steps, self._longest(history))

    def _steps_left(self, history: History) -> float:
        if self._epochs is None:
            return math.inf
        return (self._epochs - history.position) * history.steps_per_epoch
