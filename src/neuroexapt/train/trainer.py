"""``Trainer``: guarded steps, growth events, checkpoints, and one look at the test split at the end."""

from __future__ import annotations

import logging
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuroexapt.config import GrowConfig, to_json
from neuroexapt.errors import CheckpointError, OutOfMemoryError
from neuroexapt.events import EventSink, FanOut, RunFinished, RunStarted
from neuroexapt.graph import trace
from neuroexapt.resources import peak_resident_bytes, pick_device
from neuroexapt.train.run import Run
from neuroexapt.train.splits import Splits
from neuroexapt.train.step import is_out_of_memory
from neuroexapt.train.store import CheckpointStore

logger = logging.getLogger(__name__)

COMPLETED = "completed"


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """The outcome of a run.

    Attributes:
        model: The one chosen on the validation split.
        finished: The figures, as they stand in the journal.
        experience: What edits of each kind have gained, together with that which the run began with; as JSON, a file of
            it may begin another run (``morphogenesis.experience``).
    """

    model: nn.Module
    finished: RunFinished
    experience: dict[str, Any]

    @property
    def is_complete(self) -> bool:
        """Whether all epochs were trained, rather than a budget ending the run."""
        return self.finished.reason == COMPLETED


class Trainer:
    """Trains and grows a network.

    Args:
        config: Of the run.
        run_dir: Gets ``checkpoints/``; a temporary directory, removed at the end, if not given.
        sinks: Take the events.
        command: How the run was started, for the journal.
        should_stop: Polled after every step; a non-empty answer stops the run and says why.
    """

    def __init__(
        self,
        config: GrowConfig,
        run_dir: str | Path | None = None,
        sinks: Sequence[EventSink] = (),
        command: str = "",
        should_stop: Callable[[], str] = lambda: "",
    ) -> None:
        self.config, self.run_dir, self.command = config, run_dir, command
        self._events, self._should_stop = FanOut(sinks), should_stop

    def fit(self, model: nn.Module, data: Splits, *, resume: bool = False) -> RunResult:
        """Trains the seed network and grows it in place.

        Args:
            model: The seed network, also when resuming.
            data: Three splits.
            resume: Go on from the newest good checkpoint in ``run_dir``; from the beginning where none was written yet.

        Raises:
            TraceError: The model does not run on these data.
            CheckpointError: What there is to resume does not verify or fit, or a new run would write over another one.
            TrainingError: The run could not go on; it is saved up to its last checkpoint.
        """
        device = pick_device(self.config.device)
        cuda = [device.index] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), tempfile.TemporaryDirectory() as temporary:
            torch.manual_seed(self.config.seed)
            store = CheckpointStore(Path(self.run_dir or temporary) / "checkpoints")
            if not resume and not store.is_empty:
                raise CheckpointError(
                    f"{store.root}: holds the checkpoints of a run. Resume it, or give another run_dir."
                )
            run = Run(self.config, model, data, store, self._events, self._should_stop)
            try:
                self._begin(run, resume)
                return self._finish(run, self._train(run))
            except (MemoryError, RuntimeError) as error:  # outside a step: evaluation, evidence, an edit
                if not is_out_of_memory(error):
                    raise
                raise OutOfMemoryError(
                    f"epoch {run.progress.epoch + 1}: {error}. The run is saved up to its last checkpoint; "
                    "resume it with more memory."
                ) from error

    def _begin(self, run: Run, resume: bool) -> None:
        if resume and not run.store.is_empty:
            run.resume()
            return
        if resume:
            logger.warning("%s: no checkpoint was written before the run ended; it begins anew", run.store.root)
            self._events.rewind(0)
        self._start(run)

    def _start(self, run: Run) -> None:
        self._events.send(
            RunStarted(
                command=self.command,
                seed=self.config.seed,
                device=str(run.device),
                model=self.config.model.source,
                data=run.data.name,
                num_train=len(run.data.train.labels),
                num_validation=len(run.data.validation.labels),
                num_test=len(run.data.test.labels),
                num_parameters=run.num_parameters_start,
                flops=run.flops_start,
                config=to_json(self.config),
                versions={
                    "python": platform.python_version(),
                    "neuroexapt": version("neuroexapt"),
                    "torch": torch.__version__,
                },
            )
        )
        run.progress.validation_loss, run.progress.validation_accuracy = run.validate()
        run.save()

    def _train(self, run: Run) -> str:
        """Trains to the end or to a budget; returns which it was."""
        epochs, limit = self.config.train.epochs, self.config.train.max_seconds
        while run.progress.epoch < epochs:
            if not run.progress.step:
                run.engine.consider()
            run.train_epoch()
            if run.is_due:
                run.save()
                if limit is not None and run.seconds > limit and run.progress.epoch < epochs:
                    return f"stopped by max_seconds = {limit:g}"
        return COMPLETED

    def _finish(self, run: Run, reason: str) -> RunResult:
        run.engine.ledger.spend("training")
        model = run.chosen_model()
        cost = trace(model, run.feed.probe).cost
        loss, accuracy = run.measure(run.data.test, model, cost.flops_per_sample)
        history = run.engine.history
        predicted = run.engine.surgeon.forecast(batch_size=self.config.train.batch_size).peak_bytes
        finished = RunFinished(
            reason=reason,
            chosen_epoch=run.best.epoch,
            validation_loss=run.best.validation_loss,
            validation_accuracy=run.best.validation_accuracy,
            test_loss=loss,
            test_accuracy=accuracy,
            num_parameters=cost.num_parameters,
            flops=cost.flops_per_sample,
            num_parameters_start=run.num_parameters_start,
            flops_start=run.flops_start,
            total_flops=run.total_flops,
            num_accepted=history.num_accepted,
            num_rolled_back=history.num_rolled_back,
            seconds=run.seconds,
            peak_memory_bytes=peak_resident_bytes(),
            flops_by_purpose=dict(run.engine.ledger.flops),
            seconds_by_purpose=dict(run.engine.ledger.seconds),
            predicted_bytes=predicted,
            measured_bytes=run.gauge.grown_bytes(),
        )
        self._events.send(finished)
        return RunResult(model, finished, run.engine.experience.to_json())
