"""What the terminal shows while a run is under way: progress, and what each growth event did.

At a terminal a progress bar stays at the bottom and lines go above it; into a file or a pipe it is one plain line for
each epoch and each event.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from neuroexapt.cli.closing import closing_block
from neuroexapt.cli.stages import Stages
from neuroexapt.events import (
    BatchRecovered,
    CheckpointRejected,
    EpochFinished,
    Event,
    MutationApplied,
    ProposalMade,
    RunFinished,
    RunResumed,
    RunStarted,
    VerdictReached,
)
from neuroexapt.report.event_rows import strictness_in_words
from neuroexapt.report.quantities import (
    in_change,
    in_count,
    in_flops,
    in_gain,
    in_interval,
    in_loss,
    in_magnitude,
    in_number_of,
    in_percent,
    in_relative_change,
    in_signed_percent,
    in_time,
)

_INDENT = " " * len("epoch 12  ")


class Display:
    """An event sink that writes for people. Memory: the latest event of each kind that a line refers to."""

    def __init__(self, console: Console, config: Mapping[str, Any] | None = None) -> None:
        """Takes where to write, and the run's settings as JSON, else they are those that the started run tells."""
        self._console = console
        self._stages = Stages.of(config or {})
        self._flops: int | None = None
        self._applied: list[MutationApplied] = []
        self._predicted = ""  # gain of the edit that is on trial, in words
        self._bar: tuple[Progress, TaskID] | None = None

    def send(self, event: Event) -> None:
        """Shows one event; those that say nothing to a person watching, such as a saved checkpoint, show nothing."""
        match event:
            case RunStarted():
                self._start(event)
            case RunResumed():
                self._say(f"the run goes on after epoch {event.epoch}")
                self._tell_stage(event.epoch)
            case EpochFinished():
                self._show_epoch(event)
            case ProposalMade():
                self._tell_proposal(event)
            case MutationApplied():
                self._applied.append(event)
            case VerdictReached():
                self._tell_verdict(event)
            case BatchRecovered():
                self._say(f"{_at(event.epoch)}  step {event.step}: {event.fault}; {event.action}", "yellow")
            case CheckpointRejected():
                self._say(f"checkpoint {event.path} passed over: {event.reason}", "yellow")
            case RunFinished():
                self.close()
                self._say("\n".join(closing_block(event)))

    def rewind(self, num_events: int) -> None:
        """Does nothing: what was said cannot be taken back, and the resumed run says where it goes on."""

    def close(self) -> None:
        """Takes the progress bar away; may be called twice, and must be called when the run ends in an error."""
        if self._bar is not None:
            self._bar[0].stop()
            self._bar = None

    def _start(self, event: RunStarted) -> None:
        self._flops = event.flops
        if self._stages.num_epochs is None:
            self._stages = Stages.of(event.config)
        samples = " / ".join(in_count(n) for n in (event.num_train, event.num_validation, event.num_test))
        self._say(
            f"{event.model} on {event.data} ({samples} for training, validation, test), "
            f"{event.device}, seed {event.seed}\n"
            f"{in_count(event.num_parameters)} parameters, {in_flops(event.flops)} per sample at the start"
        )
        self._tell_stage(0.0)

    def _show_epoch(self, event: EpochFinished) -> None:
        if event.arm != "trial":  # a trial may be undone, and costs are told against what is there now
            self._flops = event.flops
        size = f"{in_count(event.num_parameters)} parameters"
        num_epochs = self._stages.num_epochs
        accuracy = f"accuracy {in_percent(event.validation_accuracy)}"
        if self._console.is_terminal:
            arm = "" if event.arm == "main" else f"{event.arm}: "
            self._move_bar(event.epoch, f"{arm}loss {in_loss(event.validation_loss)}  {accuracy}  {size}")
        else:
            arm = "" if event.arm == "main" else f"  ({event.arm})"
            of = f"/{num_epochs}" if num_epochs else ""
            losses = f"train {in_loss(event.train_loss)}  validation {in_loss(event.validation_loss)}"
            self._say(f"{_at(event.epoch)}{of}  {losses}  {accuracy}  {size}  {in_time(event.seconds)}{arm}")
        if event.arm == "main":
            self._tell_stage(event.epoch)

    def _move_bar(self, epoch: int, numbers: str) -> None:
        if self._bar is None:
            progress = Progress(
                TextColumn("epoch"),
                MofNCompleteColumn(),
                BarColumn(bar_width=12),
                TextColumn("{task.description}", markup=False),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            progress.start()
            self._bar = (progress, progress.add_task("", total=self._stages.num_epochs))
        progress, task = self._bar
        progress.update(task, completed=epoch, description=numbers)

    def _tell_stage(self, position: float) -> None:
        if sentence := self._stages.tell(position):
            self._say(f"{_at(position)}  {sentence}", "bold")

    def _tell_proposal(self, event: ProposalMade) -> None:
        choice = "next in turn" if event.policy == "uniform" else f"first by {event.policy}"
        self._predicted = f"{in_gain(event.predicted_gain)} nats predicted" if event.num_samples else "not predicted"
        num_edits = len(event.mutations)
        trial = f"a trial of {in_number_of(event.trial_steps, 'step')}" if event.trial_steps else "no trial"
        strict = strictness_in_words(event.strictness)
        self._say_parts(
            f"{_at(event.position, event.epoch)}  try{f' {num_edits} edits' if num_edits > 1 else ''}: "
            f"{event.description}",
            f"why: {event.trigger}{f' ({strict})' if strict else ''}; {choice} of "
            f"{in_number_of(event.num_candidates, 'candidate')}{_scored(event)}",
            f"cost {self._flop_change(event.added_flops)}, gain {self._predicted}; {trial}",
        )

    def _tell_verdict(self, event: VerdictReached) -> None:
        style = "green" if event.accepted else "red"
        verdict = f"{_at(event.position, event.epoch)}  {'kept' if event.accepted else 'rolled back'}"
        applied, self._applied = self._applied, []
        predicted, self._predicted = self._predicted or f"{in_gain(event.predicted_gain)} nats predicted", ""
        if not applied:
            self._say_parts(f"{verdict}: {event.description}: {event.reason}", style=style)
            return
        cost = (
            f"cost {in_change(sum(a.parameter_delta for a in applied))} parameters, "
            f"{self._flop_change(sum(a.flop_delta for a in applied))}; "
            f"outputs moved by {in_magnitude(max(a.output_change for a in applied))}"
        )
        if math.isnan(event.needed):  # nothing could be measured
            self._say_parts(f"{verdict}: {event.reason}", cost, style=style)
            return
        interval = f" ({in_interval(event.low, event.high)})" if event.low < event.high else ""
        self._say_parts(
            f"{verdict}: gain {in_signed_percent(event.relative_gain)}{interval}, "
            f"asked {in_signed_percent(event.needed)}, {in_number_of(event.trial_steps, 'step')}",
            f"loss {in_loss(event.trial_loss)} with, {in_loss(event.control_loss)} without: "
            f"{in_gain(event.measured_gain)} nats, {predicted}",
            cost,
            style=style,
        )
        self._tell_stage(event.position)

    def _flop_change(self, added: int) -> str:
        if self._flops:
            return f"{in_relative_change(added, self._flops)} FLOPs"
        return f"{in_flops(added)} more per sample"

    def _say_parts(self, *parts: str, style: str | None = None) -> None:
        """Says one event: at a terminal a line for each part, into a file one line for all, to be searched."""
        if not self._console.is_terminal:
            self._say("; ".join(parts), style)
            return
        for indent, part in zip(["", *[_INDENT] * (len(parts) - 1)], parts, strict=True):
            self._say(textwrap.fill(part, self._console.width, initial_indent=indent, subsequent_indent=_INDENT), style)

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(Text(text, style=style or ""), highlight=False, soft_wrap=not self._console.is_terminal)
        self._console.file.flush()


def _at(position: float, epoch: int = 0) -> str:
    """Says where, in fractions of epochs; the ``epoch`` where the position is not known."""
    where = f"{epoch if math.isnan(position) else round(position, 2):g}"
    return f"epoch {where:>2}"


def _scored(event: ProposalMade) -> str:
    """Says how many candidates the evidence is of, where the choice is by evidence and it is not of all."""
    if event.policy == "uniform" or event.num_scored in (None, event.num_candidates):
        return ""
    return f", {event.num_scored or 'none'} of them scored"
