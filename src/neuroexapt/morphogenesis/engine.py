"""``Morphogenesis``: evidence, proposal, trial, verdict, for anybody's own training loop.

When a trigger fires, some steps are first trained without the edits (the *control*); then the engine goes back to where
they began, makes the edits, and as many steps are trained again (the *trial*). The trial stays if it is better on the
validation split by what its cost and the uncertainty ask for, else the control; the other one is gone to the bit. What
would have happened without the edits is thus measured, and a loop whose data order depends on a position that goes back
with the model (given under ``stateful``) compares on the same batches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from neuroexapt.config import MorphogenesisConfig
from neuroexapt.errors import CheckpointError, ConfigError, TrainingError
from neuroexapt.events import EventSink, FanOut
from neuroexapt.graph import FlopCount
from neuroexapt.morphogenesis.allowance import Allowance
from neuroexapt.morphogenesis.assay import Batches, LossFunction
from neuroexapt.morphogenesis.budget import budget_of, calibrate, gauge_of
from neuroexapt.morphogenesis.checks import check_config, read_experience
from neuroexapt.morphogenesis.experience import Experience
from neuroexapt.morphogenesis.history import History
from neuroexapt.morphogenesis.ledger import Ledger
from neuroexapt.morphogenesis.needs import Needs
from neuroexapt.morphogenesis.proposer import Proposer
from neuroexapt.morphogenesis.snapshot import Stateful
from neuroexapt.morphogenesis.trials import ArmName, Trials, Validate
from neuroexapt.morphogenesis.triggers import Firing, Moment, why_now
from neuroexapt.surgery import Budget, Lineage, Mutation, Surgeon, replay

logger = logging.getLogger(__name__)

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
        ConfigError: Unknown names in the settings, a policy or trigger whose data are not given, or several processes.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        example_inputs: Any,
        config: MorphogenesisConfig | None = None,
        *,
        validate: Validate | None = None,
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
        self._is_by_epochs = validate is None and self.config.trial_epochs > 0  # a trial is of whole ones
        self._objective = None if evidence_batches is None else _objective(evidence_batches, loss_function)
        self._model, self._optimizer, self._seed, self._loss = model, optimizer, seed, loss
        with FlopCount(fakes=False) as count:
            self.surgeon = Surgeon(model, example_inputs, optimizer, seed, objective=self._objective, loss=loss)
            cost = self.surgeon.graph.cost
        self.history, self.experience = History(steps_per_epoch=steps_per_epoch or 0), read_experience(self.config)
        self.ledger, self._counted = Ledger(), (Lineage(), 0)  # FLOPs of a sample, and of which lineage they are
        batch_size = batch_size or cost.batch_size
        self.surgeon.budget = budget_of(self.config, cost.num_parameters, cost.flops_per_sample, batch_size)
        by_step = validate is not None
        self._allowance = Allowance(self.config, batch_size, cost.batch_size, epochs, num_validation, by_step=by_step)
        self._gauge = gauge_of(model)
        self._needs = Needs(self.config, evidence_batches, loss_function, self.ledger)
        self._proposer = Proposer(self.config, seed, evidence_batches, loss_function, self._needs, self.ledger)
        books = (self.history, self.experience, self.ledger)
        self._trials = Trials(
            self.config, model, optimizer, stateful, self.surgeon, validate, self._allowance, *books, sink or FanOut()
        )
        self.ledger.spend("surgery", count.flops)

    @property
    def flops_spent(self) -> int:
        """FLOPs so far that the loop does not see: of scores, needs, verification and deciding validations."""
        return self.ledger.unseen_flops

    @property
    def arm(self) -> ArmName:
        """What the next step is run for."""
        return self._trials.arm

    @property
    def stage(self) -> Stage:
        """Where the run stands: base training, morphogenesis, or fine-tuning after the last event there can be."""
        last, position = self.config.last_epoch, self.history.position
        if position < self.config.first_epoch:
            return "base"
        return "fine-tuning" if last is not None and position > last and self.arm == "main" else "morphogenesis"

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
        if self.arm != "main":
            self._trials.after_step(loss.item() if isinstance(loss, Tensor) else loss, flops, seconds)
        elif "schedule" in self.config.triggers and not self._is_by_epochs:
            self.consider(at_epoch_end=False)

    def after_epoch(self, validation_metric: float | None = None) -> None:
        """Ends an epoch: decides a trial that is over, and begins another if a trigger fires.

        Args:
            validation_metric: Loss on data that neither trains nor tests; lower is better. It may be left out where no
                trigger looks at it and ``validate`` decides trials.

        Raises:
            ConfigError: It is left out where trials are judged by it.
        """
        self.conclude(validation_metric)
        self.consider()

    def conclude(self, validation_loss: float | None = None) -> None:
        """Ends an epoch, of whatever arm it was, without beginning an event."""
        history = self.history
        if validation_loss is None and self._is_by_epochs and self.config.max_events:
            raise ConfigError(
                "morphogenesis: after_epoch: found no validation loss and no `validate`, needed one of them to judge "
                "trials by. Pass the loss, or give `validate`."
            )
        if validation_loss is None and not history.epoch and "plateau" in self.config.triggers:
            logger.warning("after_epoch was told no validation loss, so the trigger 'plateau' will not fire")
        if self.arm == "main":
            history.count_steps()
        self._trials.after_epoch(None if validation_loss is None else float(validation_loss))

    def consider(self, *, at_epoch_end: bool = True) -> None:
        """Begins an event if a trigger fires and the allowance and the budget admit it."""
        history = self.history
        if self.arm != "main" or not self._allowance.admits(self.ledger, history, self._flops):
            return
        firing = why_now(
            self._moment(at_epoch_end),
            history.strictness,
            num_accepted=history.num_accepted,
            seconds=self.ledger.total_seconds,
        )
        if firing is None:
            return
        calibrate(self.config, self.surgeon, self._gauge)
        spare = self._allowance.spare(self.ledger, history, self._flops)
        ranked = self._proposer.rank(self.surgeon, history, self.experience, spare)
        self.ledger.spend("proposing")
        if not ranked:
            logger.info("epoch %g: %s, but no candidate is admissible", history.position, firing.reason)
            history.last_event, history.num_empty = history.position, history.num_empty + 1
            return
        self._trials.begin(self._proposer.proposal(firing, ranked), self._proposer.context(history, self.experience))

    def propose(self, mutation: Mutation) -> None:
        """Begins an event with an edit of the caller's choice, for example one that ``candidates`` never offers.

        The control comes next, then the trial, then the verdict, whatever triggers, bans, allowance and the number of
        events say.

        Raises:
            TrainingError: An event is under way.
            SurgeryError: It cannot be done; a ``BudgetError`` where it costs too much.
        """
        if self.arm != "main":
            raise TrainingError(f"morphogenesis: `arm` is {self.arm!r}: propose an edit when it is 'main'.")
        ranked = [self._proposer.weigh(self.surgeon, mutation, self.history)]
        proposal = self._proposer.proposal(Firing("", "asked for"), ranked)
        self._trials.begin(proposal, self._proposer.context(self.history, self.experience))

    def abandon_trial(self, reason: str) -> None:
        """Ends a trial that cannot go on, for example because its step fails: the edits go, the control stays.

        Raises:
            TrainingError: No trial is under way.
        """
        if self.arm != "trial":
            raise TrainingError(f"morphogenesis: `arm` is {self.arm!r}: only a trial can be abandoned.")
        self._trials.abandon(f"the trial was given up: {reason}")

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs, as JSON; between events only.

        Raises:
            TrainingError: A trial is under way.
        """
        if self.arm != "main":
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
        if len(self.surgeon.lineage) or self.arm != "main":
            raise CheckpointError(
                "morphogenesis: the model has been changed already, needed its seed model. Build model, optimizer and "
                "engine again, then load."
            )
        lineage, budget, inputs = Lineage.from_json(state["lineage"]), state["budget"], self.surgeon.inputs
        self.surgeon = self._trials.surgeon = replay(
            self._model, lineage, inputs, self._optimizer, self._seed, objective=self._objective, loss=self._loss
        )
        self.surgeon.budget = Budget(**budget) if budget else None  # the seed network's
        self.history.load(state["history"])
        self.experience.beliefs = Experience.from_json(state["experience"]).beliefs
        self.ledger.load(state["ledger"])

    @property
    def _flops(self) -> int:
        # A graph is compared with the model whenever it is asked for, which is too much for every step.
        if self._counted[0] is not self.surgeon.lineage:
            self._counted = self.surgeon.lineage, self.surgeon.graph.cost.flops_per_sample
        return self._counted[1]

    def _moment(self, at_epoch_end: bool) -> Moment:
        history = self.history

        def highest_need() -> float:
            spare = self._allowance.spare(self.ledger, history, self._flops)
            return self._needs.highest(self.surgeon, history, spare)

        return Moment(
            config=self.config,
            position=history.position,
            at_epoch_end=at_epoch_end,
            losses=history.losses,
            last_event=history.last_event,
            num_events=history.num_events,
            highest_need=highest_need,
        )


def _objective(batches: Batches, loss_function: LossFunction) -> Callable[[nn.Module], Tensor]:
    """Mean loss on the first batch of evidence of the first epoch: what plans that measure are given."""

    def objective(model: nn.Module) -> Tensor:
        inputs, targets = next(iter(batches(0)))
        return loss_function(model(inputs), targets)

    return objective
