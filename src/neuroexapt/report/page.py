"""What the page shows, in words: tiles, captions and table rows, made from a summary. The template only sets them."""

from __future__ import annotations

from dataclasses import dataclass

from neuroexapt.events import RunFinished, RunStarted
from neuroexapt.report.event_rows import UNKNOWN, Row, as_text, event_rows
from neuroexapt.report.headline import headline
from neuroexapt.report.quantities import (
    in_bytes,
    in_count,
    in_flops,
    in_flops_range,
    in_number_of,
    in_percent,
    in_time,
)
from neuroexapt.report.spending import memory_in_words, overhead_in_words, spending
from neuroexapt.report.summary import RunSummary

CAPTIONS = {
    "curves": (
        "Loss and accuracy over compute",
        "From left to right: all floating-point operations spent so far, trials included, so that growth does not look "
        "cheaper than it was. Each numbered mark above the panel is a growth event, where its trial began: a filled "
        "triangle was accepted, a hollow red cross rolled back. A trial is counted in steps; where its arms are longer "
        "than an epoch, grey dashes are the epochs of the other arm, drawn at the place of the same epochs.",
    ),
    "structure": (
        "The network's shape",
        "Parameters and weight layers along the epochs that count, and the units of every channel group (parameter "
        "slices that have to change together). In colour: changed; grey or white: as in the seed network.",
    ),
    "gains": (
        "What each event promised and what it brought",
        "Gains are falls of the validation loss against the control, as a share of the control's loss. Grey was "
        "predicted before the edits, green or red measured, with the 95 % interval over the validation samples. The "
        "black tick is what was asked for: a bar that does not pass it was undone. An edit that makes the network "
        "smaller may be asked for less than nothing.",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """A key figure."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SpendingRow:
    """Where compute and time went, in the table; shares in percent are the lengths of the bars."""

    purpose: str
    flops: str
    flops_percent: float
    flops_share: str
    seconds: str
    seconds_percent: float
    seconds_share: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """All words of a report."""

    title: str
    headline: str
    tiles: tuple[Tile, ...]
    rows: tuple[Row, ...]
    spending: tuple[SpendingRow, ...]
    overhead: str
    facts: tuple[tuple[str, str], ...]
    config: str
    recoveries: tuple[str, ...]


def make_page(summary: RunSummary) -> Page:
    """Returns what a report of this run says."""
    started = summary.started
    return Page(
        title=f"{started.model} on {started.data}, seed {started.seed}",
        headline=headline(summary),
        tiles=_tiles(summary),
        rows=event_rows(summary),
        spending=_spending(summary.finished),
        overhead=overhead_in_words(summary.finished, _allowed(started)) if summary.finished else "",
        facts=_facts(summary),
        config=as_text(started.config),
        recoveries=tuple(f"epoch {r.epoch}, step {r.step}: {r.fault}; {r.action}" for r in summary.recoveries),
    )


def _tiles(summary: RunSummary) -> tuple[Tile, ...]:
    return (
        _accuracy_tile(summary),
        Tile(
            name="Parameters",
            value=f"{in_count(summary.num_parameters_start)} → {in_count(summary.num_parameters_end)}",
            note=_factor(summary.num_parameters_end, summary.num_parameters_start),
        ),
        Tile(
            name="FLOPs per sample",
            value=in_flops_range(summary.flops_start, summary.flops_end),
            note=_factor(summary.flops_end, summary.flops_start) + ", forward",
        ),
        Tile(
            name="Compute spent",
            value=in_flops(summary.total_flops),
            note=f"{in_percent(summary.not_taken_flops / max(summary.total_flops, 1))} of it on arms not taken",
        ),
        Tile(name="Time", value=in_time(summary.seconds), note=f"on {summary.started.device}"),
        Tile(name="Peak memory", value=in_bytes(summary.peak_memory_bytes), note=_memory_note(summary.finished)),
    )


def _memory_note(finished: RunFinished | None) -> str:
    if finished is None or not finished.predicted_bytes:
        return "of the whole process"
    step = memory_in_words(finished)
    return f"of the whole process; a training step: {step}"


def _spending(finished: RunFinished | None) -> tuple[SpendingRow, ...]:
    return tuple(
        SpendingRow(
            purpose=spent.purpose,
            flops=in_flops(spent.flops),
            flops_percent=round(100 * spent.flops_fraction, 2),
            flops_share=in_percent(spent.flops_fraction),
            seconds="with training" if spent.seconds is None else in_time(spent.seconds),
            seconds_percent=round(100 * (spent.seconds_fraction or 0.0), 2),
            seconds_share="" if spent.seconds_fraction is None else in_percent(spent.seconds_fraction),
        )
        for spent in (spending(finished) if finished else ())
    )


def _accuracy_tile(summary: RunSummary) -> Tile:
    if summary.finished is not None:
        num_test = in_number_of(summary.started.num_test, "sample")
        note = f"on {num_test}; model of epoch {summary.finished.chosen_epoch}"
        return Tile(name="Test accuracy", value=in_percent(summary.finished.test_accuracy), note=note)
    if summary.main_line:
        latest = summary.main_line[-1]
        note = f"after epoch {latest.epoch}; not tested yet"
        return Tile(name="Validation accuracy", value=in_percent(latest.validation_accuracy), note=note)
    return Tile(name="Test accuracy", value=UNKNOWN, note="no epoch has finished yet")


def _factor(end: int, start: int) -> str:
    return "unchanged" if end == start else f"{end / max(start, 1):.2f} times as many"


def _allowed(started: RunStarted) -> float | None:
    """Returns the setting ``overhead_fraction``; ``None`` for no limit, or where the settings do not say."""
    settings = started.config.get("morphogenesis")
    found = settings.get("overhead_fraction") if isinstance(settings, dict) else None
    return float(found) if isinstance(found, int | float) else None


def _facts(summary: RunSummary) -> tuple[tuple[str, str], ...]:
    started, finished = summary.started, summary.finished
    split = " / ".join(in_count(n) for n in (started.num_train, started.num_validation, started.num_test))
    facts = [
        ("Command", started.command),
        ("Seed", str(started.seed)),
        ("Model", started.model),
        ("Data", f"{started.data}: {split} samples for training, validation and test"),
        ("Device", started.device),
        ("Epochs that count", str(len(summary.main_line))),
        ("Ended", finished.reason if finished else "not yet"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in started.versions.items()) or UNKNOWN),
    ]
    if summary.num_resumes:
        facts.append(("Resumed", in_number_of(summary.num_resumes, "time")))
    return tuple(facts)
