"""``Trials``: carries out one trial at a time, from the snapshot to the verdict."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from neuroexapt.config import MorphogenesisConfig
from neuroexapt.errors import InputError, SurgeryError
from neuroexapt.events import EventSink
from neuroexapt.graph import FlopCount
from neuroexapt.morphogenesis.allowance import Allowance
from neuroexapt.morphogenesis.averaging import WeightAverage
from neuroexapt.morphogenesis.experience import Experience
from neuroexapt.morphogenesis.history import History
from neuroexapt.morphogenesis.ledger import Ledger
from neuroexapt.morphogenesis.policies import Context
from neuroexapt.morphogenesis.proposal import Proposal
from neuroexapt.morphogenesis.snapshot import Snapshot, Stateful
from neuroexapt.morphogenesis.telling import applied_facts, verdict_fact
from neuroexapt.morphogenesis.trial import Arm, Trial
from neuroexapt.morphogenesis.verdict import Verdict, cost_of, judge
from neuroexapt.surgery import Surgeon

logger = logging.getLogger(__name__)

ArmName = Literal["main", "control", "trial"]
Validate = Callable[[], Tensor]  # -> loss of every validation sample [n]


class Trials:
    """Runs the control, goes back, makes the edits, runs the trial, and keeps one of the two.

    Memory: see ``Trial``.

    Args:
        config: What is asked of a trial.
        model: Its values go back and forth.
        optimizer: Likewise.
        stateful: What goes back with them.
        surgeon: Of the model.
        validate: Ends an arm at any step; without it arms end with epochs.
        allowance: What trials may cost.
        history: Learns of what happened.
        experience: Learns what it was worth.
        ledger: Books it.
        sink: Is told.
    """

    def __init__(
        self,
        config: MorphogenesisConfig,
        model: nn.Module,
        optimizer: Optimizer,
        stateful: Sequence[Stateful],
        surgeon: Surgeon,
        validate: Validate | None,
        allowance: Allowance,
        history: History,
        experience: Experience,
        ledger: Ledger,
        sink: EventSink,
    ) -> None:
        self._config, self._model, self._optimizer, self._stateful = config, model, optimizer, tuple(stateful)
        self.surgeon, self._validate, self._allowance = surgeon, validate, allowance
        self._history, self._experience, self._ledger, self._sink = history, experience, ledger, sink
        self._current: Trial | None = None

    @property
    def arm(self) -> ArmName:
        """What the next step is run for."""
        if self._current is None:
            return "main"
        return "control" if self._current.trial is None else "trial"

    def begin(self, proposal: Proposal, context: Context) -> None:
        """Begins with the control, or, where edits are made untried, makes them; nothing where all cost too much."""
        steps = self._affordable_steps(proposal)
        if steps is None:
            logger.info("epoch %g: %s, but it costs too much now", self._history.position, proposal.firing.reason)
            return
        self._history.waits_for = 0
        proposal.step_length = float(self._optimizer.param_groups[0]["lr"]) * steps
        self._sink.send(proposal.event(context, steps))
        self._current = Trial(proposal, steps, self._snapshot(), self._history.num_steps)
        self._ledger.spend("surgery")
        if not steps:
            self._make_edits(self._current)

    def after_step(self, loss: float, flops: int, seconds: float) -> None:
        """Counts a step for the arm that runs, and ends the arm where it has had its steps."""
        trial = self._current
        if trial is None:
            return
        trial.arm.add_step(loss, flops, seconds)
        if self._validate is not None and trial.is_in_second_half:
            trial.arm.average.add(self._model)
            if trial.is_arm_over:
                self._close_arm(trial, self._losses(trial.arm, self._validate))

    def after_epoch(self, loss: float | None) -> None:
        """Notes that an epoch has ended in the arm that runs; where nothing else can, it ends the arm."""
        trial = self._current
        if trial is None:
            self._history.add_epoch(loss)
            return
        trial.arm.epoch_losses.append(loss)
        if self._validate is None and trial.is_arm_over:
            self._close_arm(trial, math.nan if loss is None else loss)

    def abandon(self, reason: str) -> None:
        """Ends the trial that runs; the control stays."""
        assert self._current is not None
        self._end(self._current, Verdict.failed(reason))

    def _snapshot(self) -> Snapshot:
        return Snapshot(self._model, self._optimizer, self._stateful)

    def _affordable_steps(self, proposal: Proposal) -> int | None:
        """Returns the length of the trial, of as many edits as are affordable together, else of the best one that is.

        Where none is, ``waits_for`` says what the cheapest would cost.
        """
        flops, is_free = self.surgeon.graph.cost.flops_per_sample, not proposal.firing.trigger

        def steps_with(added: int) -> int | None:
            return self._allowance.steps(self._ledger, self._history, flops, flops + added, is_free=is_free)

        for count in range(len(proposal.chosen), 0, -1):
            proposal.num_edits = count
            if (steps := steps_with(proposal.flop_delta)) is not None:
                return steps
        for number, assay in enumerate(proposal.ranked):
            if (steps := steps_with(assay.flop_delta)) is not None:
                proposal.ranked = proposal.ranked[number:]
                return steps
        self._history.waits_for = flops + min(assay.flop_delta for assay in proposal.ranked)
        return None

    def _losses(self, arm: Arm, validate: Validate) -> Tensor:
        with arm.average.swapped_in(self._model):
            losses = _checked(validate())
        arm.average = WeightAverage()
        self._allowance.num_validation = losses.numel()
        self._ledger.spend("validation", losses.numel() * self.surgeon.graph.cost.flops_per_sample)
        return losses

    def _close_arm(self, trial: Trial, losses: Tensor | float) -> None:
        trial.arm.losses, trial.arm.end = losses, self._history.num_steps
        if trial.trial is None:
            self._make_edits(trial)
        else:
            measured = losses if trial.trial.is_finite else math.nan
            self._end(trial, judge(trial.control.losses, measured, trial.cost, self._config))

    def _make_edits(self, trial: Trial) -> None:
        """Goes back to where the control began and makes the edits; where none can be made, the control stays."""
        start, trial.back_to = trial.back_to, self._snapshot()
        start.restore()
        self._history.num_steps, before = trial.began_at, self.surgeon.graph.cost
        count = FlopCount(fakes=False)
        try:
            with count:
                trial.proposal.apply(self.surgeon, self._history, self._config)
                after = self.surgeon.graph.cost
        except SurgeryError as error:
            self._ledger.spend("surgery", count.flops)
            self._end(trial, Verdict.failed(str(error)))
            return
        trial.cost = cost_of(
            after.flops_per_sample / max(before.flops_per_sample, 1), after.num_parameters / before.num_parameters
        )
        trial.trial = Arm()
        seconds = self._ledger.spend("surgery", count.flops)
        for fact in applied_facts(trial.proposal, self._history, seconds):
            self._sink.send(fact)
        if not trial.num_steps:
            self._end(trial, Verdict.untried(trial.cost, is_exact=trial.proposal.is_exact))

    def _end(self, trial: Trial, verdict: Verdict) -> None:
        """Keeps the trial, or goes back to the end of the control, and tells."""
        kept, gone = trial.control, trial.trial or Arm()
        if verdict.accepted:
            kept, gone = gone, kept
            self.surgeon.forget_patches()
        else:
            trial.proposal.take_back(self.surgeon)
            trial.back_to.restore()
            self._history.num_steps = trial.control.end if trial.num_steps else trial.began_at
        self._current = None
        self._ledger.discard(gone.flops, gone.seconds)
        for loss in kept.epoch_losses:
            self._history.add_epoch(loss)
        fact = verdict_fact(trial, verdict, self._history, gone.flops)  # with the prediction as it was before
        trial.proposal.learn(verdict, self._history, self._experience, self._config)
        self._sink.send(fact)
        self._ledger.spend("surgery")


def _checked(losses: Tensor) -> Tensor:
    if not losses.dim() or not losses.numel():
        raise InputError(
            f"validate: found losses of shape {list(losses.shape)}, needed the loss of every validation sample [n], n "
            "at least 1. Compute it with reduction='none' on data that are not empty."
        )
    return losses.detach().clone()
