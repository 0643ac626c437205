"""``Morphogenesis``: evidence, proposal, trial, verdict, for anybody's own training loop.

When a trigger fires, some steps are first trained without the edits (the *control*); then the engine goes back to where
they began, makes the edits, and as many steps are trained again (the *trial*). The trial stays if it is better on the
validation split by what its cost and the uncertainty ask for, else the control; the other one is gone to the bit. What
would have happened without the edits is thus measured, and a loop whose data order depends on a position that goes back
with the model (given under ``stateful``) compares on the same batches.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from neuroexapt.config import MorphogenesisConfig
from neuroexapt.errors import CheckpointError, SurgeryError, TrainingError
from neuroexapt.events import EventSink, FanOut, MutationApplied, VerdictReached
from neuroexapt.morphogenesis.allowance import Allowance
from neuroexapt.morphogenesis.assay import Assay, Batches, LossFunction
from neuroexapt.morphogenesis.averaging import WeightAverage
from neuroexapt.morphogenesis.budget import budget_of
from neuroexapt.morphogenesis.checks import check_config, read_experience
from neuroexapt.morphogenesis.experience import Experience
from neuroexapt.morphogenesis.history import History
from neuroexapt.morphogenesis.ledger import Ledger
from neuroexapt.morphogenesis.needs import Needs
from neuroexapt.morphogenesis.proposal import Proposal
from neuroexapt.morphogenesis.proposer import Proposer
from neuroexapt.morphogenesis.snapshot import Snapshot, Stateful
from neuroexapt.morphogenesis.trial import Arm, Trial
from neuroexapt.morphogenesis.triggers import Firing, Moment, why_now
from neuroexapt.morphogenesis.verdict import Verdict, cost_of, judge
from neuroexapt.surgery import Budget, Lineage, Mutation, Surgeon, replay

logger = logging.getLogger(__name__)

ArmName = Literal["main", "control", "trial"]
Stage = Literal["base", "morphogenesis", "fine-tuning"]


class Morphogenesis:
    """Changes a model's architecture while somebody's loop trains it.

    Call ``after_step`` after every optimizer step and ``after_epoch`` after every epoch; train in a function of its
    own, so that no output or loss of the last step is still referred to::

        engine = Morphogenesis(model, optimizer, example_inputs, validate=validation_losses, stateful=[scheduler])
        for _ in range(num_epochs):
            for inputs, targets in batches:
                engine.after_step(train_step(model, optimizer, inputs, targets))  # returns loss.item()
            scheduler.step()
            engine.after_epoch(validation_loss)

    ``arm`` says what the next step is run for. A trial repeats steps: a loop whose position is among ``stateful`` sees
    it go back, any other just goes on with its next batches.

    Args:
        model: Any module; edited in place.
        optimizer: Its optimizer; edited in place.
        example_inputs: One batch of inputs; edits are verified on it.
        config: When, where and how much.
        validate: Returns the loss of every validation sample ``[n]`` of the model as it is, the same samples in the
            same order each time, without gradient and leaving the model's mode as it was. With it a trial can end at
            any step and its gain has an uncertainty; without it a trial takes whole epochs and is judged by what
            ``after_epoch`` is told.
        seed: Of all new weights and random decisions.
        stateful: What goes back with the model when a trial begins or is undone: schedulers, counters, samplers.
        epochs: How many the loop will run; no trial begins that could not end. Without it there is no such check.
        steps_per_epoch: Found out in the first epoch if not given.
        evidence_batches: Epoch to batches of (inputs, targets) of training data. With them every candidate is scored,
            as far as ``score_fraction`` of the training FLOPs admits, and gains are predicted.
        loss_function: (outputs, targets) -> mean loss, for the evidence.
        sink: Takes the events.
        batch_size: Samples in one training step, for ``max_bytes`` and the FLOPs of training; those of the example
            inputs by default.
        num_validation: Samples that ``validate`` reads; found out when it is first called if not given.
        loss: The loop's loss module, for edits that change a setting of it (label smoothing).

    Raises:
        ConfigError: Unknown names in the settings, or a policy or trigger whose data are not given.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        example_inputs: Any,
        config: MorphogenesisConfig | None = None,
        *,
        validate: Callable[[], Tensor] | None = None,
        seed: int = 0,
        stateful: Sequence[Stateful] = (),
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        evidence_batches: Batches | None = None,
        loss_function: LossFunction = F.cross_entropy,
        sink: EventSink | None = None,
        batch_size: int | None = None,
        num_validation: int = 0,
        loss: nn.Module | None = None,
    ) -> None:
        self.config = config or MorphogenesisConfig()
        check_config(self.config, has_evidence=evidence_batches is not None)
        self._objective = None if evidence_batches is None else _objective(evidence_batches, loss_function)
        self._loss, self._validate = loss, validate
        self.surgeon = Surgeon(model, example_inputs, optimizer, seed, objective=self._objective, loss=loss)
        self.history, self.experience = History(steps_per_epoch=steps_per_epoch or 0), read_experience(self.config)
        self.ledger = Ledger()
        self._model, self._optimizer, self._seed = model, optimizer, seed
        self._stateful, self._sink = tuple(stateful), sink or FanOut()
        cost = self.surgeon.graph.cost
        batch_size = batch_size or cost.batch_size
        self.surgeon.budget = budget_of(self.config, cost.num_parameters, cost.flops_per_sample, batch_size)
        self._needs = Needs(self.config, evidence_batches, loss_function, self.ledger)
        self._proposer = Proposer(self.config, seed, evidence_batches, loss_function, self._needs, self.ledger)
        self._allowance = Allowance(self.config, batch_size, epochs, num_validation, by_step=validate is not None)
        self._trial: Trial | None = None
        self.ledger.spend("surgery")

    @property
    def flops_spent(self) -> int:
        """FLOPs so far that the loop does not see: of scores, needs, verification and deciding validations."""
        return self.ledger.unseen_flops

    @property
    def arm(self) -> ArmName:
        """What the next step is run for."""
        if self._trial is None:
            return "main"
        return "control" if self._trial.trial is None else "trial"

    @property
    def stage(self) -> Stage:
        """Where the run stands: base training, morphogenesis, or fine-tuning after the last event there can be."""
        last, position = self.config.last_epoch, self.history.position
        if position < self.config.first_epoch:
            return "base"
        return "fine-tuning" if last is not None and position > last and self._trial is None else "morphogenesis"

    def after_step(self, loss: float | Tensor, num_samples: int | None = None) -> None:
        """Notes one optimizer step and its training loss; ends an arm of a trial that has had its steps.

        The model may be another one afterwards: of the trial, or of the arm that stays.

        Args:
            loss: Of the step.
            num_samples: In the step, for the FLOPs; ``batch_size`` if not given.
        """
        flops = self._allowance.step_flops(self._flops, num_samples)
        seconds = self.ledger.spend("training", flops)
        self.history.num_steps += 1
        self.history.unscored_flops += flops
        trial = self._trial
        if trial is not None:
            trial.arm.add_step(loss.item() if isinstance(loss, Tensor) else loss, flops, seconds)
            if self._validate is not None and trial.is_in_second_half:
                trial.arm.average.add(self._model)
                if trial.is_arm_over:
                    self._close_arm(trial, self._losses(trial.arm, self._validate))
        elif self.config.schedule_epochs:
            self.consider(at_epoch_end=False)

    def after_epoch(self, validation_metric: float | None = None) -> None:
        """Ends an epoch: decides a trial that is over, and begins another if a trigger fires.

        Args:
            validation_metric: Loss on data that neither trains nor tests; lower is better. It may be left out where no
                trigger looks at it and ``validate`` decides trials.
        """
        self.conclude(validation_metric)
        self.consider()

    def conclude(self, validation_loss: float | None = None) -> None:
        """Ends an epoch, of whatever arm it was, without beginning an event."""
        loss = None if validation_loss is None else float(validation_loss)
        history, trial = self.history, self._trial
        history.steps_per_epoch = history.steps_per_epoch or history.num_steps  # no trial can have begun before
        if trial is None:
            history.add_epoch(loss)
            return
        trial.arm.epoch_losses.append(loss)
        if self._validate is None and trial.is_arm_over:
            self._close_arm(trial, math.nan if loss is None else loss)

    def consider(self, *, at_epoch_end: bool = True) -> None:
        """Begins an event if a trigger fires and the allowance and the budget admit it."""
        if self._trial is not None or not self._allowance.admits(self.ledger, self.history, self._flops):
            return
        history, seconds = self.history, self.ledger.total_seconds
        firing = why_now(
            self._moment(at_epoch_end), history.strictness, num_accepted=history.num_accepted, seconds=seconds
        )
        if firing is None:
            return
        ranked = self._proposer.rank(self.surgeon, self.history, self.experience, self._spare_flops())
        self.ledger.spend("proposing")
        if ranked:
            self._begin_event(ranked, firing)
        else:
            logger.info("epoch %g: %s, but no candidate is admissible", self.history.position, firing.reason)
            self.history.last_event = self.history.position
            self.history.num_empty += 1  # so that a schedule and a sequence go on

    def propose(self, mutation: Mutation) -> None:
        """Begins an event with an edit of the caller's choice, for example one that ``candidates`` never offers.

        The control comes next, then the trial, then the verdict, whatever triggers, bans, allowance and the number of
        events say.

        Raises:
            TrainingError: An event is under way.
            SurgeryError: It cannot be done; a ``BudgetError`` where it costs too much.
        """
        if self._trial is not None:
            raise TrainingError(f"morphogenesis: `arm` is {self.arm!r}: propose an edit when it is 'main'.")
        self._begin_event([self._proposer.weigh(self.surgeon, mutation, self.history)], Firing("", "asked for"))

    def abandon_trial(self, reason: str) -> None:
        """Ends a trial that cannot go on, for example because its step fails: the edits go, the control stays.

        Raises:
            TrainingError: No trial is under way.
        """
        if self._trial is None or self._trial.trial is None:
            raise TrainingError(f"morphogenesis: `arm` is {self.arm!r}: only a trial can be abandoned.")
        self._end(self._trial, Verdict.failed(f"the trial was given up: {reason}"))

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs, as JSON; between events only.

        Raises:
            TrainingError: A trial is under way.
        """
        if self._trial is not None:
            raise TrainingError("morphogenesis: a trial is under way; save when `arm` is 'main'.")
        return {
            "history": self.history.to_json(),
            "lineage": self.surgeon.lineage.to_json(),
            "ledger": self.ledger.to_json(),
            "experience": self.experience.to_json(),
            "budget": asdict(self.surgeon.budget) if self.surgeon.budget else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Grows the seed model by the saved lineage and takes the history over; load the weights afterwards.

        Raises:
            CheckpointError: The model has grown already.
            SurgeryError: The lineage does not fit the model.
        """
        if len(self.surgeon.lineage) or self._trial is not None:
            raise CheckpointError(
                "morphogenesis: the model has been changed already, needed its seed model. Build model, optimizer and "
                "engine again, then load."
            )
        lineage, budget, inputs = Lineage.from_json(state["lineage"]), state["budget"], self.surgeon.inputs
        self.surgeon = replay(
            self._model, lineage, inputs, self._optimizer, self._seed, objective=self._objective, loss=self._loss
        )
        self.surgeon.budget = Budget(**budget) if budget else None  # the seed network's
        self.history = History.from_json(state["history"])
        self.experience = Experience.from_json(state["experience"])
        self.ledger = self._needs.ledger = self._proposer.ledger = Ledger.from_json(state["ledger"])

    @property
    def _flops(self) -> int:
        return self.surgeon.graph.cost.flops_per_sample

    def _spare_flops(self) -> float:
        """Returns what may be spent before a trial, so that the shortest one is still affordable."""
        left = self._allowance.left(self.ledger, self.history, self._flops)
        return left - self._allowance.least(self.history, self._flops)

    def _moment(self, at_epoch_end: bool) -> Moment:
        return Moment(
            config=self.config,
            position=self.history.position,
            at_epoch_end=at_epoch_end,
            losses=self.history.losses,
            last_event=self.history.last_event,
            num_events=self.history.num_events,
            highest_need=self._highest_need,
        )

    def _highest_need(self) -> float:
        if self._needs.expected_flops(self.surgeon) > self._spare_flops():
            return 0.0  # not to be had for what is left; asked again when there is more
        return self._needs.highest(self.surgeon, self.history)

    def _losses(self, arm: Arm, validate: Callable[[], Tensor]) -> Tensor:
        with arm.average.swapped_in(self._model):
            losses = validate().detach().clone()
        arm.average = WeightAverage()
        self._allowance.num_validation = losses.numel()
        self.ledger.spend("validation", losses.numel() * self._flops)
        return losses

    def _begin_event(self, ranked: Sequence[Assay], firing: Firing) -> None:
        proposal = Proposal(firing, tuple(ranked), self.config.edits_per_event, scoring=self._proposer.scoring)
        steps = self._affordable_steps(proposal)
        if steps is None:
            logger.info("epoch %g: %s, but the allowance has to grow", self.history.position, firing.reason)
            return
        proposal.step_length = float(self._optimizer.param_groups[0]["lr"]) * steps
        self._sink.send(proposal.event(self._proposer.context(self.history, self.experience), steps))
        snapshot = Snapshot(self._model, self._optimizer, self._stateful)
        self._trial = Trial(proposal, steps, snapshot, self.history.num_steps)
        self.ledger.spend("surgery")
        if not steps:
            self._begin_trial(self._trial)

    def _affordable_steps(self, proposal: Proposal) -> int | None:
        """Returns the length of the trial; of fewer edits, best first, where one of all of them costs too much."""
        is_free = not proposal.firing.trigger
        for count in range(len(proposal.chosen), 0, -1):
            proposal.num_edits = count
            after = self._flops + proposal.flop_delta
            steps = self._allowance.steps(self.ledger, self.history, self._flops, after, is_free=is_free)
            if steps is not None:
                return steps
        return None

    def _close_arm(self, trial: Trial, losses: Tensor | float) -> None:
        trial.arm.losses, trial.arm.end = losses, self.history.num_steps
        if trial.trial is None:
            self._begin_trial(trial)
        else:
            measured = losses if trial.trial.is_finite else math.nan
            self._end(trial, judge(trial.control.losses, measured, trial.cost, self.config))

    def _begin_trial(self, trial: Trial) -> None:
        """Goes back to where the control began and makes the edits; where none can be made, the control stays."""
        start, trial.back_to = trial.back_to, Snapshot(self._model, self._optimizer, self._stateful)
        start.restore()
        self.history.num_steps, before = trial.began_at, self.surgeon.graph.cost
        try:
            trial.proposal.apply(self.surgeon, self.history, self.config)
        except SurgeryError as error:
            self.ledger.spend("surgery")
            self._end(trial, Verdict.failed(str(error)))
            return
        after = self.surgeon.graph.cost
        trial.cost = cost_of(
            after.flops_per_sample / max(before.flops_per_sample, 1), after.num_parameters / before.num_parameters
        )
        trial.trial = Arm()
        seconds = self.ledger.spend("surgery", self._allowance.verification_flops(trial.proposal, after))
        self._tell_applied(trial.proposal, seconds)
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
            self.history.num_steps = trial.control.end if trial.num_steps else trial.began_at
        self._trial = None
        self.ledger.discard(gone.flops, gone.seconds)
        for loss in kept.epoch_losses:
            self.history.add_epoch(loss)
        trial.proposal.learn(verdict, self.history, self.experience, self.config)
        self._sink.send(_told(trial, verdict, self.history, gone.flops))
        self.ledger.spend("surgery")

    def _tell_applied(self, proposal: Proposal, seconds: float) -> None:
        for _, patch in proposal.applied:
            self._sink.send(
                MutationApplied(
                    epoch=self.history.epoch,
                    mutation=patch.mutation.to_json(),
                    description=patch.description,
                    output_change=patch.output_change,
                    parameter_delta=patch.parameter_delta,
                    flop_delta=patch.flop_delta,
                    seconds=seconds / len(proposal.applied),
                )
            )


def _told(trial: Trial, verdict: Verdict, history: History, discarded_flops: int) -> VerdictReached:
    return VerdictReached(
        epoch=history.epoch,
        position=history.position,
        accepted=verdict.accepted,
        mutations=[assay.mutation.to_json() for assay in trial.proposal.chosen],
        description=trial.proposal.description,
        predicted_gain=trial.proposal.prediction(history),
        measured_gain=verdict.gain,
        relative_gain=verdict.relative_gain,
        low=verdict.low,
        high=verdict.high,
        cost=verdict.cost,
        control_loss=trial.control.mean_loss,
        trial_loss=trial.trial.mean_loss if trial.trial is not None else math.nan,
        trial_steps=trial.num_steps,
        discarded_flops=discarded_flops,
        reason=verdict.reason,
    )


def _objective(batches: Batches, loss_function: LossFunction) -> Callable[[nn.Module], Tensor]:
    """Mean loss on the first batch of evidence of the first epoch: what plans that measure are given."""

    def objective(model: nn.Module) -> Tensor:
        inputs, targets = next(iter(batches(0)))
        return loss_function(model(inputs), targets)

    return objective
