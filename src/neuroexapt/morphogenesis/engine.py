"""``Morphogenesis``: evidence, proposal, trial, verdict, for anybody's own training loop.

When a trigger fires, the next ``trial_epochs`` are first trained without the edit (the *control*); then the engine goes
back to where they began, applies the edit, and the same epochs are trained again (the *trial*). The trial stays if its
validation loss is lower by ``min_gain``, else the control; the other one is gone to the bit. What would have happened
without the edit is thus measured, and a loop whose data order depends on the epoch counter (given under ``stateful``)
compares on the same batches.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from neuroexapt.analysis.scores import SCORES
from neuroexapt.config import MorphogenesisConfig
from neuroexapt.errors import CheckpointError, ConfigError, SurgeryError, TrainingError
from neuroexapt.events import EventSink, FanOut, MutationApplied, VerdictReached
from neuroexapt.morphogenesis.assay import Assay, Batches, LossFunction
from neuroexapt.morphogenesis.budget import budget_of
from neuroexapt.morphogenesis.history import History
from neuroexapt.morphogenesis.proposal import Proposal, Proposer
from neuroexapt.morphogenesis.snapshot import Snapshot, Stateful
from neuroexapt.morphogenesis.triggers import why_now
from neuroexapt.morphogenesis.verdict import Verdict, judge
from neuroexapt.surgery import MUTATIONS, Budget, Lineage, Mutation, Patch, Surgeon, replay

logger = logging.getLogger(__name__)

Arm = Literal["main", "control", "trial"]
OBSERVATIONS = 4  # forward passes on the probe batch per edit: eval and train mode, before and after


@dataclass
class _Trial:
    """One event under way. Memory: one snapshot, two while the control hands over to the trial, and one patch."""

    proposal: Proposal
    back_to: Snapshot  # where control and trial begin; once the trial runs, the end of the control
    control_losses: list[float] = field(default_factory=list)
    trial_losses: list[float] = field(default_factory=list)
    patch: Patch | None = None


class Morphogenesis:
    """Grows a model between the epochs of a training loop.

    Call ``after_step`` after every optimizer step and ``after_epoch`` with the validation loss after every epoch; train
    in a function of its own, so that no output or loss of the last step is still referred to::

        engine = Morphogenesis(model, optimizer, example_inputs, stateful=[scheduler])
        for _ in range(num_epochs):
            for inputs, targets in batches:
                engine.after_step(train_step(model, optimizer, inputs, targets))  # returns loss.item()
            scheduler.step()
            engine.after_epoch(validation_loss(model))

    ``arm`` says what the next epoch is run for; every event takes ``trial_epochs`` more of them.

    Args:
        model: Any module; edited in place.
        optimizer: Its optimizer; edited in place.
        example_inputs: One batch of inputs; edits are verified on it.
        config: When, where and how much.
        seed: Of all new weights.
        stateful: What goes back with the model when a trial begins or is undone: schedulers, counters, samplers.
        evidence_batches: Epoch to batches of (inputs, targets) of training data. With them every candidate is scored,
            as far as ``score_fraction`` of the training FLOPs admits, and gains are predicted; policy "evidence" needs
            them.
        loss_function: (outputs, targets) -> mean loss, for the evidence.
        sink: Takes the events.
        batch_size: Samples in one training step, for ``max_bytes`` and the FLOPs of training; those of the example
            inputs by default.
        loss: The loop's loss module, for edits that change a setting of it (label smoothing).

    Raises:
        ConfigError: Unknown mutation kinds or score, or policy "evidence" without ``evidence_batches``.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        example_inputs: Any,
        config: MorphogenesisConfig | None = None,
        *,
        seed: int = 0,
        stateful: Sequence[Stateful] = (),
        evidence_batches: Batches | None = None,
        loss_function: LossFunction = F.cross_entropy,
        sink: EventSink | None = None,
        batch_size: int | None = None,
        loss: nn.Module | None = None,
    ) -> None:
        self.config = config or MorphogenesisConfig()
        if unknown := set(self.config.kinds) - set(MUTATIONS):
            raise ConfigError(f"morphogenesis.kinds: unknown {sorted(unknown)}; known are {', '.join(MUTATIONS)}.")
        if self.config.score not in SCORES:
            raise ConfigError(f"morphogenesis.score: found {self.config.score!r}, needed one of {', '.join(SCORES)}.")
        if self.config.policy == "evidence" and evidence_batches is None and self.config.max_events:
            raise ConfigError(
                'morphogenesis.policy: "evidence" reads gradients, and there is no data to read them from. '
                'Pass evidence_batches, or choose policy="uniform".'
            )
        self._objective = None if evidence_batches is None else _objective(evidence_batches, loss_function)
        self._loss = loss
        self.surgeon = Surgeon(model, example_inputs, optimizer, seed, objective=self._objective, loss=loss)
        self.history = History()
        self._model, self._optimizer, self._seed = model, optimizer, seed
        self._stateful, self._sink = tuple(stateful), sink or FanOut()
        cost = self.surgeon.graph.cost
        self.surgeon.budget = budget_of(self.config, cost.num_parameters, cost.flops_per_sample, batch_size)
        self._proposer = Proposer(self.config, evidence_batches, loss_function)
        self._trial: _Trial | None = None
        self._batch_size = batch_size or cost.batch_size
        self._num_steps = 0
        self._is_finite = True

    @property
    def flops_spent(self) -> int:
        """FLOPs of scores and verification so far."""
        return self._proposer.flops_spent

    @property
    def arm(self) -> Arm:
        """What the next epoch is run for."""
        if self._trial is None:
            return "main"
        return "control" if self._trial.patch is None else "trial"

    def after_step(self, loss: float | Tensor) -> None:
        """Notes one optimizer step and its training loss."""
        self._num_steps += 1
        value = loss.item() if isinstance(loss, Tensor) else loss
        self._is_finite = self._is_finite and math.isfinite(value)

    def after_epoch(self, validation_metric: float, *, epochs_left: int | None = None) -> None:
        """Ends an epoch: decides a trial that is over, and begins another if a trigger fires.

        Args:
            validation_metric: Loss on data that neither trains nor tests; lower is better.
            epochs_left: How many epochs are still to come; no trial begins that could not end.
        """
        self.conclude(validation_metric)
        self.consider(epochs_left=epochs_left)

    def conclude(self, validation_loss: float) -> None:
        """Ends an epoch of whatever arm it was; a trial that is over gets its verdict."""
        loss = float(validation_loss)
        self.history.num_steps, self._num_steps = self._num_steps, 0
        self.history.training_flops += _training_flops(self.surgeon, self._batch_size, self.history.num_steps)
        trial = self._trial
        if trial is None:
            self.history.add_loss(loss)
            return
        losses = trial.control_losses if trial.patch is None else trial.trial_losses
        losses.append(loss)
        if len(losses) < self.config.trial_epochs:
            return
        if trial.patch is None:
            self._begin_trial(trial)
        else:
            measured = loss if self._is_finite else math.nan
            self._end(trial, judge(trial.control_losses[-1], measured, self.config.min_gain), measured)

    def abandon_trial(self, reason: str) -> None:
        """Ends a trial that cannot go on, for example because its step fails: the edit goes, the control stays.

        Raises:
            TrainingError: No trial is under way.
        """
        if self._trial is None or self._trial.patch is None:
            raise TrainingError(f"morphogenesis: `arm` is {self.arm!r}: only a trial can be abandoned.")
        self.history.training_flops += _training_flops(self.surgeon, self._batch_size, self._num_steps)
        self._num_steps = 0
        self._end(self._trial, Verdict(False, math.nan, f"the trial was given up: {reason}"), math.nan)

    def consider(self, *, epochs_left: int | None = None) -> None:
        """Begins an event if a trigger fires and the budget admits a candidate."""
        reason = why_now(self.config, self.history) if self._trial is None else ""
        room = epochs_left is None or epochs_left >= self.config.trial_epochs
        if not reason or not room:
            return
        ranked = self._proposer.rank(self.surgeon, self.history)
        if not ranked:
            logger.info("epoch %d: %s, but no candidate is admissible", self.history.epoch, reason)
            self.history.last_event = self.history.epoch
            return
        self._begin_event(ranked, reason)

    def propose(self, mutation: Mutation) -> None:
        """Begins an event with an edit of the caller's choice, for example one that ``candidates`` never offers.

        The control comes next, then the trial, then the verdict, whatever triggers, bans and the number of events say.

        Raises:
            TrainingError: An event is under way.
            SurgeryError: It cannot be done; a ``BudgetError`` where it costs too much.
        """
        if self._trial is not None:
            raise TrainingError(f"morphogenesis: `arm` is {self.arm!r}: propose an edit when it is 'main'.")
        self._begin_event([self._proposer.weigh(self.surgeon, mutation, self.history)], "asked for")

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
            "proposer": self._proposer.state_dict(),
            "budget": asdict(self.surgeon.budget) if self.surgeon.budget else None,
            "num_steps": self._num_steps,
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
        lineage, budget = Lineage.from_json(state["lineage"]), state["budget"]
        self.surgeon = replay(
            self._model,
            lineage,
            self.surgeon.inputs,
            self._optimizer,
            self._seed,
            objective=self._objective,
            loss=self._loss,
        )
        self.surgeon.budget = Budget(**budget) if budget else None  # the seed network's
        self.history = History(**state["history"])
        self._proposer.load_state_dict(state["proposer"])
        self._num_steps = state["num_steps"]

    def _begin_event(self, ranked: Sequence[Assay], reason: str) -> None:
        proposal = Proposal.of(
            ranked, _step_length(self._optimizer, self.history, self.config), self.history, self._proposer.scoring
        )
        self._sink.send(proposal.event(reason, self.config.policy, self.history))
        self._trial = _Trial(proposal, Snapshot(self._model, self._optimizer, self._stateful))

    def _begin_trial(self, trial: _Trial) -> None:
        start, trial.back_to = trial.back_to, Snapshot(self._model, self._optimizer, self._stateful)
        start.restore()
        began, step_length = time.perf_counter(), _step_length(self._optimizer, self.history, self.config)
        try:
            trial.patch = patch = _apply_best(self.surgeon, trial, step_length, self.history, self.config)
        except SurgeryError as error:
            self._end(trial, Verdict(False, math.nan, str(error)), math.nan)
            return
        self._is_finite = True
        cost = self.surgeon.graph.cost
        self._proposer.flops_spent += OBSERVATIONS * cost.batch_size * cost.flops_per_sample
        self._sink.send(
            MutationApplied(
                epoch=self.history.epoch,
                mutation=patch.mutation.to_json(),
                description=patch.description,
                output_change=patch.output_change,
                parameter_delta=patch.parameter_delta,
                flop_delta=patch.flop_delta,
                seconds=time.perf_counter() - began,
            )
        )

    def _end(self, trial: _Trial, verdict: Verdict, trial_loss: float) -> None:
        """Keeps the trial, or goes back to the end of the control, and tells."""
        if verdict.accepted:
            self.surgeon.forget_patches()
        else:
            if trial.patch is not None:
                self.surgeon.revert(trial.patch)
            trial.back_to.restore()
        self._trial = None
        for loss in trial.trial_losses if verdict.accepted else trial.control_losses:
            self.history.add_loss(loss)
        trial.proposal.learn(verdict, self.history, self.config.ban_epochs)
        self._sink.send(
            VerdictReached(
                epoch=self.history.epoch,
                accepted=verdict.accepted,
                mutation=trial.proposal.choice.mutation.to_json(),
                description=trial.proposal.choice.description,
                predicted_gain=trial.proposal.prediction,
                measured_gain=verdict.gain,
                control_loss=trial.control_losses[-1],
                trial_loss=trial_loss,
                reason=verdict.reason,
            )
        )


def _training_flops(surgeon: Surgeon, batch_size: int, num_steps: int) -> int:
    """What steps take: a forward, and twice as much backward."""
    return 3 * num_steps * batch_size * surgeon.graph.cost.flops_per_sample


def _step_length(optimizer: Optimizer, history: History, config: MorphogenesisConfig) -> float:
    """Learning rate times the steps of a trial."""
    return float(optimizer.param_groups[0]["lr"]) * history.num_steps * config.trial_epochs


def _apply_best(
    surgeon: Surgeon, trial: _Trial, step_length: float, history: History, config: MorphogenesisConfig
) -> Patch:
    """Applies the choice, or if it is refused the next in rank; a refused place is banned.

    Raises:
        SurgeryError: All were refused.
    """
    while True:
        choice = trial.proposal.choice
        try:
            return surgeon.apply(choice.mutation)
        except SurgeryError as error:
            logger.warning("the proposed edit was refused: %s", error)
            other = trial.proposal.next_best(step_length, history)
            if other is None:
                raise
        history.banned_until[choice.place] = history.epoch + config.ban_epochs
        trial.proposal = other


def _objective(batches: Batches, loss_function: LossFunction) -> Callable[[nn.Module], Tensor]:
    """Mean loss on the first batch of evidence of the first epoch: what plans that measure are given."""

    def objective(model: nn.Module) -> Tensor:
        inputs, targets = next(iter(batches(0)))
        return loss_function(model(inputs), targets)

    return objective
