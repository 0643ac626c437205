"""One run under way: model, optimizer, engine, counters, and how they are saved and brought back."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroexapt.config import GrowConfig, to_json
from neuroexapt.errors import CheckpointError, Interrupted, ModelError, SurgeryError
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
from neuroexapt.resources import pick_device, random_state, resident_bytes, set_random_state, stream
from neuroexapt.train.batches import batches, num_batches
from neuroexapt.train.checkpoint import fill, load_grown, to_payload
from neuroexapt.train.evaluate import evaluate
from neuroexapt.train.optimization import build_optimizer, learning_rate_at, set_learning_rate
from neuroexapt.train.progress import Best, Progress
from neuroexapt.train.splits import Split, Splits
from neuroexapt.train.step import GuardedStep
from neuroexapt.train.store import CheckpointStore

logger = logging.getLogger(__name__)

PROBE_SIZE = 16  # samples that edits are verified on
EVIDENCE_BATCHES = 8
EVALUATION_BATCH = 512


class Run:
    """Everything that changes while training; ``Trainer`` drives it.

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
        check_model(model, data)
        self._seed_model = copy.deepcopy(model)
        self.model = model.to(self.device)
        self.optimizer = build_optimizer(config.train, self.model)
        self.progress = Progress()
        self.best: Best | None = None
        self._should_stop = should_stop
        self._began, self._seconds_before, self._flops = time.monotonic(), 0.0, 0
        self.probe = data.normalise(data.train.images[:PROBE_SIZE].to(self.device))
        self.engine = Morphogenesis(
            self.model,
            self.optimizer,
            self.probe,
            config.morphogenesis,
            seed=config.seed,
            stateful=[self.progress],
            evidence_batches=self._evidence_batches,
            sink=events,
        )
        cost = self.engine.surgeon.graph.cost
        self.num_parameters_start, self.flops_start = cost.num_parameters, cost.flops_per_sample
        self._step = GuardedStep(
            self.model,
            self.optimizer,
            partial(F.cross_entropy, label_smoothing=config.train.label_smoothing),
            config.train.clip_norm,
            config.train.max_bad_batches,
            self._report_fault,
        )
        self._num_steps = 0

    @property
    def flops_per_sample(self) -> int:
        """Forward FLOPs of the present model for one sample."""
        return self.engine.surgeon.graph.cost.flops_per_sample

    @property
    def total_flops(self) -> int:
        """FLOPs of training, evaluation, evidence and verification so far, discarded arms included."""
        return self._flops + self.engine.flops_spent

    @property
    def seconds(self) -> float:
        """Wall time of the run, over all its processes."""
        return self._seconds_before + time.monotonic() - self._began

    def train_epoch(self) -> None:
        """Trains one epoch, validates, and tells; ``progress`` then stands after it.

        Raises:
            Interrupted: The run was asked to stop.
            TrainingError: A fault that no retry mends.
        """
        began, epoch = time.monotonic(), self.progress.epoch
        self.model.train()
        total_loss, count, arm = 0.0, 0, self.engine.arm
        size, split = self.config.train.batch_size, self.data.train
        num_steps = num_batches(len(split.labels), size)
        for index, (inputs, labels) in enumerate(self._batches(split, size, stream(self.config.seed, "order", epoch))):
            set_learning_rate(self.optimizer, learning_rate_at(self.config.train, epoch + (index + 1) / num_steps))
            result = self._step(inputs, labels)
            self.engine.after_step(result.loss)
            self._num_steps += 1
            self._flops += 3 * len(labels) * self.flops_per_sample
            if result.was_applied:
                total_loss, count = total_loss + result.loss * len(labels), count + len(labels)
            if reason := self._should_stop():
                raise Interrupted(f"{reason}: the run is saved up to its last checkpoint. Go on with --resume.")
        loss, accuracy = self.measure(self.data.validation)
        self.progress.load_state_dict(Progress(epoch + 1, loss, accuracy).state_dict())
        self._tell(arm, total_loss / max(count, 1), time.monotonic() - began)

    def measure(self, split: Split, model: nn.Module | None = None) -> tuple[float, float]:
        """Returns (loss, accuracy) on a split and counts what it cost."""
        self._flops += len(split.labels) * self.flops_per_sample
        return evaluate(model or self.model, self._batches(split, EVALUATION_BATCH, None))

    def save(self) -> None:
        """Writes a checkpoint of the present state; keeps the two newest and the best one."""
        name = f"step-{self.progress.epoch:08d}"
        is_best = self.best is None or self.best.is_beaten_by(self.progress)
        if is_best:
            self.best = Best(
                name, self.progress.epoch, self.progress.validation_loss, self.progress.validation_accuracy
            )
        assert self.best is not None
        state = {
            "config": to_json(self.config),
            "data": self.data.fingerprint,
            "engine": self.engine.state_dict(),
            "progress": self.progress.state_dict(),
            "best": asdict(self.best),
            "random": random_state(),
            "flops": self._flops,
            "seconds": self.seconds,
            "num_steps": self._num_steps,
            "num_events": self.events.num_sent,
            "input": list(self.data.train.images.shape[1:]),
            "num_classes": self.data.num_classes,
            "start": [self.num_parameters_start, self.flops_start],
        }
        path = self.store.save(self.progress.epoch, to_payload(self.model, self.optimizer, state))
        self.store.purge([self.best.checkpoint])
        self.events.send(CheckpointSaved(epoch=self.progress.epoch, path=str(path.name), is_best=is_best))

    def resume(self) -> None:
        """Goes back to the newest checkpoint that verifies; passes damaged ones over and says so.

        Raises:
            CheckpointError: None verifies, or it was made with other settings or other data.
        """
        path, payload, skipped = self.store.newest()
        state = payload.state
        self._check_same_run(path, state)
        self.events.rewind(state["num_events"])
        for skipped_path, reason in skipped:
            self.events.send(CheckpointRejected(path=skipped_path.name, reason=reason))
        try:
            self.engine.load_state_dict(state["engine"])
        except SurgeryError as error:
            raise CheckpointError(f"{path}: {error}") from error
        fill(payload, self.model, self.optimizer, str(path))
        self.progress.load_state_dict(state["progress"])
        self.best = Best(**state["best"])
        self._flops, self._seconds_before, self._num_steps = state["flops"], state["seconds"], state["num_steps"]
        self.num_parameters_start, self.flops_start = state["start"]
        set_random_state(state["random"])
        self.events.send(RunResumed(epoch=self.progress.epoch, path=path.name))

    def chosen_model(self) -> nn.Module:
        """Returns the model that validation chose, rebuilt from its checkpoint on a copy of the seed network."""
        assert self.best is not None
        path = self.store.root / self.best.checkpoint
        return load_grown(path, self._seed_model, self.probe, self.device)

    def _check_same_run(self, path: Path, state: dict[str, Any]) -> None:
        if state["data"] != self.data.fingerprint:
            raise CheckpointError(
                f"{path}: the data have changed since the run began. Restore them, or start a new run."
            )
        saved, own = state["config"], to_json(self.config)
        saved["train"]["max_seconds"] = own["train"]["max_seconds"]  # a run that ran out of time may get more
        if different := [key for key in own if saved.get(key) != own[key]]:
            raise CheckpointError(
                f"{path}: made with other settings ({', '.join(different)}). Resume with the run's own config.json."
            )

    def _batches(self, split: Split, size: int, generator: torch.Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
        return batches(split.images, split.labels, size, self.data.normalise, self.device, generator)

    def _evidence_batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        split = self.data.train
        size = min(self.config.morphogenesis.evidence_samples, len(split.labels)) // EVIDENCE_BATCHES
        chosen = torch.randperm(len(split.labels), generator=stream(self.config.seed, "evidence", epoch))
        chosen = chosen[: size * EVIDENCE_BATCHES]
        return batches(split.images[chosen], split.labels[chosen], size, self.data.normalise, self.device)

    def _tell(self, arm: str, train_loss: float, seconds: float) -> None:
        graph = self.engine.surgeon.graph
        self.events.send(
            EpochFinished(
                epoch=self.progress.epoch,
                arm=arm,
                train_loss=train_loss,
                validation_loss=self.progress.validation_loss,
                validation_accuracy=self.progress.validation_accuracy,
                num_parameters=graph.cost.num_parameters,
                flops=graph.cost.flops_per_sample,
                total_flops=self.total_flops,
                seconds=seconds,
                learning_rate=float(self.optimizer.param_groups[0]["lr"]),
                widths={g.name: g.size for g in graph.groups if not g.pin_reason},
                num_layers=sum(1 for m in self.model.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))),
                memory_bytes=resident_bytes(),
            )
        )

    def _report_fault(self, fault: str, action: str) -> None:
        logger.warning("epoch %d, step %d: %s; %s", self.progress.epoch + 1, self._num_steps, fault, action)
        self.events.send(
            BatchRecovered(epoch=self.progress.epoch + 1, step=self._num_steps, fault=fault, action=action)
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
