"""One run under way: model, optimizer, engine, counters, and how they are saved and brought back."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import asdict

from torch import nn

from neuroexapt.config import GrowConfig, to_json
from neuroexapt.errors import (
    CheckpointError,
    Interrupted,
    ModelError,
    NonFiniteLossError,
    OutOfMemoryError,
    SurgeryError,
)
from neuroexapt.events import (
    BatchRecovered,
    CheckpointRejected,
    CheckpointSaved,
    EpochFinished,
    FanOut,
    RunResumed,
)
from neuroexapt.graph import trace
from neuroexapt.morphogenesis import Morphogenesis
from neuroexapt.resources import MemoryGauge, pick_device, random_state, resident_bytes, set_random_state
from neuroexapt.train.checkpoint import check_fit, fill, load_grown, to_payload
from neuroexapt.train.evaluate import evaluate, sample_losses
from neuroexapt.train.feed import PROBE_SIZE, Feed
from neuroexapt.train.optimization import build_optimizer, learning_rate_at, set_learning_rate
from neuroexapt.train.progress import Best, Progress
from neuroexapt.train.same_run import check_same_run
from neuroexapt.train.splits import Split, Splits
from neuroexapt.train.step import GuardedStep
from neuroexapt.train.store import CheckpointStore

logger = logging.getLogger(__name__)


class Run:
    """Everything that changes while training; ``Trainer`` drives it.

    Memory: model, optimizer and a copy of the seed network; during a trial one snapshot and the edited tensors more.

    Args:
        config: Of the run.
        model: The seed network; grown in place.
        data: Three splits.
        store: Where checkpoints go.
        events: Takes what happens.
        should_stop: Polled after every step; a non-empty answer stops the run and says why.
    """

    def __init__(
        self,
        config: GrowConfig,
        model: nn.Module,
        data: Splits,
        store: CheckpointStore,
        events: FanOut,
        should_stop: Callable[[], str],
    ) -> None:
        self.config, self.data, self.store, self.events = config, data, store, events
        self.device = pick_device(config.device)
        self.feed = Feed(data, config, self.device)
        self.gauge = MemoryGauge(self.device)
        check_model(model, data)
        self._seed_model = copy.deepcopy(model)
        self.model = model.to(self.device)
        self.optimizer = build_optimizer(config.train, self.model)
        self.progress = Progress()
        self.best = Best()
        self._should_stop = should_stop
        self._began, self._seconds_before, self._flops = time.monotonic(), 0.0, 0
        self._epoch_began = self._began
        self._num_steps, self._saved_epoch = 0, 0
        criterion = nn.CrossEntropyLoss(label_smoothing=config.train.label_smoothing)
        self._step = GuardedStep(
            self.model,
            self.optimizer,
            criterion,
            config.train.clip_norm,
            config.train.max_bad_batches,
            self._report_fault,
            config.train.precision,
        )
        self.engine = self._build_engine(criterion)
        cost = self.engine.surgeon.graph.cost
        self.num_parameters_start, self.flops_start = cost.num_parameters, cost.flops_per_sample

    @property
    def total_flops(self) -> int:
        """FLOPs of training, evaluation, evidence and verification so far, discarded arms included."""
        return self._flops + self.engine.flops_spent

    @property
    def seconds(self) -> float:
        """Wall time of the run, over all its processes."""
        return self._seconds_before + time.monotonic() - self._began

    @property
    def is_due(self) -> bool:
        """Whether it is time for a checkpoint; during a trial it has to wait."""
        since = self.progress.epoch - self._saved_epoch
        is_last = self.progress.epoch == self.config.train.epochs
        is_between = self.engine.arm == "main" and not self.progress.step
        return is_between and since > 0 and (since >= self.config.train.checkpoint_every or is_last)

    def train_epoch(self) -> None:
        """Trains to the end of an epoch, validates, tells, and lets the engine conclude; ``progress`` stands after it.

        Where the engine goes back to the beginning of a trial it ends there: call it again. A trial that runs out of
        memory or diverges is over, and the run goes on without its edit.

        Raises:
            Interrupted: The run was asked to stop.
            TrainingError: A fault that no retry mends.
        """
        if not self.progress.step:
            self._epoch_began = time.monotonic()
        try:
            is_over = self._train_batches()
        except (NonFiniteLossError, OutOfMemoryError) as error:
            if self.engine.arm != "trial":
                raise
            failure = str(error)
        else:
            if is_over:
                self._end_epoch()
            return
        self.engine.abandon_trial(failure)  # after the handler, whose traceback holds tensors

    def measure(self, split: Split, model: nn.Module, flops_per_sample: int) -> tuple[float, float]:
        """Returns a model's (loss, accuracy) on a split and counts what it cost."""
        self._flops += len(split.labels) * flops_per_sample
        return evaluate(model, self.feed.all_of(split), self.config.train.precision)

    def validate(self) -> tuple[float, float]:
        """Returns the present model's (loss, accuracy) on the validation split."""
        return self.measure(self.data.validation, self.model, self.engine.surgeon.graph.cost.flops_per_sample)

    def save(self) -> None:
        """Writes a checkpoint of the present state; keeps the two newest and the best one."""
        name = f"step-{self.progress.epoch:08d}"
        if self.best.is_beaten_by(self.progress):
            self.best = Best.of(name, self.progress)
        state = {
            "config": to_json(self.config),
            "data": self.data.fingerprint,
            "engine": self.engine.state_dict(),
            "progress": self.progress.state_dict(),
            "step": self._step.state_dict(),
            "best": asdict(self.best),
            "random": random_state(),
            "flops": self._flops,
            "seconds": self.seconds,
            "num_steps": self._num_steps,
            "num_events": self.events.num_sent,  # those before the one that tells of this checkpoint
            "input": list(self.data.train.images.shape[1:]),
            "num_classes": self.data.num_classes,
            "start": [self.num_parameters_start, self.flops_start],
        }
        self.store.save(self.progress.epoch, to_payload(self.model, self.optimizer, state))
        self._saved_epoch = self.progress.epoch
        self.store.purge([self.best.checkpoint])
        self.events.send(saved_fact(self, name))

    def resume(self) -> None:
        """Goes back to the newest checkpoint that verifies; passes damaged ones over and says so.

        Raises:
            CheckpointError: None verifies, or it was made with other settings or other data.
        """
        path, payload, skipped = self.store.newest()
        state = payload.state
        check_fit(payload, self.optimizer, str(path))
        try:
            check_same_run(path, state, self.config, self.data.fingerprint)
            self.engine.load_state_dict(state["engine"])
            fill(payload, self.model, self.optimizer, str(path))
            self.progress.load_state_dict(state["progress"])
            self._step.load_state_dict(state["step"])
            self.best = Best(**state["best"])
            self._flops, self._seconds_before, self._num_steps = state["flops"], state["seconds"], state["num_steps"]
            self.num_parameters_start, self.flops_start = state["start"]
            set_random_state(state["random"])
            num_events: int = state["num_events"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: found a state of another version of neuroexapt ({error}), needed one of this. Go on with "
                "the version that wrote it, or start a new run."
            ) from error
        except SurgeryError as error:
            raise CheckpointError(f"{path}: does not fit this run: {error}. Resume with its own seed model.") from error
        self._saved_epoch = self.progress.epoch
        self.events.rewind(num_events)
        self.events.send(saved_fact(self, path.name))  # a kill may have come between the checkpoint and this line
        for skipped_path, reason in skipped:
            self.events.send(CheckpointRejected(path=skipped_path.name, reason=reason))
        self.events.send(RunResumed(epoch=self.progress.epoch, path=path.name))

    def chosen_model(self) -> nn.Module:
        """Returns the best checkpoint's model on a copy of the seed network; the latest one where it cannot be read."""
        try:
            return load_grown(self.store.root / self.best.checkpoint, self._seed_model, self.feed.probe, self.device)
        except CheckpointError as error:
            logger.warning("the chosen model cannot be read, the latest one is taken instead: %s", error)
            self.events.send(CheckpointRejected(path=self.best.checkpoint, reason=str(error)))
            self.best = Best.of("", self.progress)
            return self.model

    def _build_engine(self, criterion: nn.Module) -> Morphogenesis:
        config, validation = self.config, self.data.validation
        return Morphogenesis(
            self.model,
            self.optimizer,
            self.feed.probe,
            config.morphogenesis,
            validate=lambda: sample_losses(self.model, self.feed.all_of(validation), config.train.precision),
            seed=config.seed,
            stateful=[self.progress, self._step],
            epochs=config.train.epochs,
            steps_per_epoch=self.feed.num_steps,
            evidence_batches=self.feed.evidence,
            sink=self.events,
            batch_size=config.train.batch_size,
            num_validation=len(validation.labels),
            loss=criterion,
        )

    def _train_batches(self) -> bool:
        """Trains on the rest of an epoch; returns whether it came to its end, or the engine went back on the way."""
        self.model.train()
        epoch, progress = self.progress.epoch, self.progress
        for inputs, labels in self.feed.training(epoch, progress.step):
            position = epoch + (progress.step + 1) / self.feed.num_steps
            set_learning_rate(
                self.optimizer, learning_rate_at(self.config.train, position, self.config.morphogenesis.last_epoch)
            )
            result = self._step(inputs, labels)
            self._num_steps += 1
            self._flops += 3 * len(labels) * self.engine.surgeon.graph.cost.flops_per_sample
            progress.step += 1
            here = progress.position
            if result.was_applied:
                progress.add_batch(result.loss, len(labels))
                self.engine.after_step(result.loss, len(labels))
            if reason := self._should_stop():
                raise Interrupted(f"{reason}: the run is saved up to its last checkpoint. Go on with --resume.")
            if progress.position != here:
                return False
        return True

    def _end_epoch(self) -> None:
        arm, train_loss = self.engine.arm, self.progress.train_loss
        self.progress.end_epoch(*self.validate())
        self.events.send(epoch_fact(self, arm, train_loss, time.monotonic() - self._epoch_began))
        self.engine.conclude(self.progress.validation_loss)

    def _report_fault(self, fault: str, action: str) -> None:
        logger.warning("epoch %d, step %d: %s; %s", self.progress.epoch + 1, self._num_steps, fault, action)
        self.events.send(
            BatchRecovered(epoch=self.progress.epoch + 1, step=self._num_steps, fault=fault, action=action)
        )


def saved_fact(run: Run, name: str) -> CheckpointSaved:
    """Returns what there is to tell of a checkpoint."""
    return CheckpointSaved(epoch=run.progress.epoch, path=name, is_best=run.best.checkpoint == name)


def epoch_fact(run: Run, arm: str, train_loss: float, seconds: float) -> EpochFinished:
    """Returns what there is to tell of the epoch that has just ended."""
    graph, progress = run.engine.surgeon.graph, run.progress
    return EpochFinished(
        epoch=progress.epoch,
        arm=arm,
        train_loss=train_loss,
        validation_loss=progress.validation_loss,
        validation_accuracy=progress.validation_accuracy,
        num_parameters=graph.cost.num_parameters,
        flops=graph.cost.flops_per_sample,
        total_flops=run.total_flops,
        seconds=seconds,
        learning_rate=float(run.optimizer.param_groups[0]["lr"]),
        widths={g.name: g.size for g in graph.groups if not g.pin_reason},
        num_layers=sum(1 for m in run.model.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))),
        memory_bytes=resident_bytes(),
    )


def check_model(model: nn.Module, data: Splits) -> None:
    """Runs a model on a few training images, on fakes, and looks at its logits; changes and allocates nothing.

    Raises:
        ModelError: Its forward fails, or its output is not one row of logits per image.
    """
    inputs = data.normalise(data.train.images[:PROBE_SIZE])
    graph = trace(model, inputs)
    needed = [(len(inputs), data.num_classes)]
    if graph.output_shapes != needed:
        raise ModelError(
            f"{type(model).__name__}: found outputs of shape {graph.output_shapes}, needed {needed}: "
            f"one logit for each of the {data.num_classes} classes. Give it num_classes outputs."
        )
