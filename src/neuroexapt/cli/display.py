"""What the terminal shows while a run is under way: progress, and what each growth event did.

At a terminal a progress bar stays at the bottom and lines go above it; into a file or a pipe it is one plain line for
each epoch and each event.
"""

from __future__ import annotations

import textwrap

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

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
from neuroexapt.report.quantities import (
    in_bytes,
    in_change,
    in_count,
    in_flops,
    in_flops_range,
    in_gain,
    in_loss,
    in_magnitude,
    in_number_of,
    in_percent,
    in_relative_change,
    in_time,
)

_INDENT = " " * len("epoch 12  ")


class Display:
    """An event sink that writes for people. Memory: the latest event of each kind that a line refers to."""

    def __init__(self, console: Console, *, num_epochs: int | None = None) -> None:
        """Takes where to write; ``num_epochs`` is the run's length, else it is read from the started run's config."""
        self._console = console
        self._num_epochs = num_epochs
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
                self._say("\n".join(_closing_block(event)))

    def rewind(self, num_events: int) -> None:
        """Does nothing: what was said cannot be taken back, and the resumed run says where it goes on."""

    def close(self) -> None:
        """Takes the progress bar away; may be called twice, and must be called when the run ends in an error."""
        if self._bar is not None:
            self._bar[0].stop()
            self._bar = None

    def _start(self, event: RunStarted) -> None:
        self._flops = event.flops
        self._num_epochs = self._num_epochs or _epochs_in(event)
        samples = " / ".join(in_count(n) for n in (event.num_train, event.num_validation, event.num_test))
        self._say(
            f"{event.model} on {event.data} ({samples} for training, validation, test), "
            f"{event.device}, seed {event.seed}\n"
            f"{in_count(event.num_parameters)} parameters, {in_flops(event.flops)} per sample at the start"
        )

    def _show_epoch(self, event: EpochFinished) -> None:
        if event.arm != "trial":  # a trial may be undone, and costs are told against what is there now
            self._flops = event.flops
        size = f"{in_count(event.num_parameters)} parameters"
        accuracy = f"accuracy {in_percent(event.validation_accuracy)}"
        if self._console.is_terminal:
            arm = "" if event.arm == "main" else f"{event.arm}: "
            self._move_bar(event.epoch, f"{arm}loss {in_loss(event.validation_loss)}  {accuracy}  {size}")
        else:
            arm = "" if event.arm == "main" else f"  ({event.arm})"
            of = f"/{self._num_epochs}" if self._num_epochs else ""
            losses = f"train {in_loss(event.train_loss)}  validation {in_loss(event.validation_loss)}"
            self._say(f"{_at(event.epoch)}{of}  {losses}  {accuracy}  {size}  {in_time(event.seconds)}{arm}")

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
            self._bar = (progress, progress.add_task("", total=self._num_epochs))
        progress, task = self._bar
        progress.update(task, completed=epoch, description=numbers)

    def _tell_proposal(self, event: ProposalMade) -> None:
        choice = "next in turn" if event.policy == "uniform" else f"first by {event.policy}"
        self._predicted = in_gain(event.predicted_gain) if event.num_samples else "not known"
        self._say_parts(
            f"{_at(event.epoch)}  try: {event.description}",
            f"why: {event.trigger}; {choice} of {in_number_of(event.num_candidates, 'candidate')}{_scored(event)}",
            f"cost {self._flop_change(event.added_flops)}, predicted gain {self._predicted}",
        )

    def _tell_verdict(self, event: VerdictReached) -> None:
        style = "green" if event.accepted else "red"
        verdict = f"{_at(event.epoch)}  {'kept' if event.accepted else 'rolled back'}"
        applied, self._applied = self._applied, []
        predicted, self._predicted = self._predicted or in_gain(event.predicted_gain), ""
        if not applied:
            self._say_parts(f"{verdict}: {event.description}: {event.reason}", style=style)
            return
        self._say_parts(
            f"{verdict}: validation loss {in_loss(event.trial_loss)} with it, {in_loss(event.control_loss)} without",
            f"gain {in_gain(event.measured_gain)}, predicted {predicted}"
            + ("" if event.accepted else f": {event.reason}"),
            f"cost {in_change(sum(a.parameter_delta for a in applied))} parameters, "
            f"{self._flop_change(sum(a.flop_delta for a in applied))}; "
            f"outputs moved by {in_magnitude(max(a.output_change for a in applied))} at the edit",
            style=style,
        )

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


def _at(epoch: int) -> str:
    return f"epoch {epoch:>2}"


def _scored(event: ProposalMade) -> str:
    """Says how many candidates the evidence is of, where the choice is by evidence and it is not of all."""
    if event.policy == "uniform" or event.num_scored in (None, event.num_candidates):
        return ""
    return f", {event.num_scored or 'none'} of them scored"


def _epochs_in(event: RunStarted) -> int | None:
    """Returns the length of the run where its config has one at ``train.epochs``."""
    train = event.config.get("train")
    epochs = train.get("epochs") if isinstance(train, dict) else None
    return epochs if isinstance(epochs, int) else None


def _closing_block(event: RunFinished) -> list[str]:
    edits = f"{in_number_of(event.num_accepted, 'edit')} kept, {in_count(event.num_rolled_back)} rolled back"
    first = "done" if event.reason == "completed" else f"stopped: {event.reason}"
    return [
        f"{first}: {edits}",
        f"  test accuracy   {in_percent(event.test_accuracy)} (model of epoch {event.chosen_epoch}, "
        f"chosen on validation: {in_percent(event.validation_accuracy)} there)",
        f"  parameters      {in_count(event.num_parameters_start)} -> {in_count(event.num_parameters)}",
        f"  FLOPs a sample  {in_flops_range(event.flops_start, event.flops).replace('→', '->')}",
        f"  compute         {in_flops(event.total_flops)} in all, trials included",
        f"  time, memory    {in_time(event.seconds)}, {in_bytes(event.peak_memory_bytes)} at the peak",
    ]
