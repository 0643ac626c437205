"""What the page shows, in words: tiles, captions and table rows, made from a summary. The template only sets them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from neuroexapt.report.headline import headline
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
from neuroexapt.report.summary import GrowthEvent, RunSummary

UNKNOWN = "–"

CAPTIONS = {
    "curves": (
        "Loss and accuracy over compute",
        "From left to right: all floating-point operations spent so far, trials included, so that growth does not look "
        "cheaper than it was. Each numbered mark above the panel is an edit: a filled triangle was accepted, a hollow "
        "red cross rolled back. Grey dashes are the other arm of each trial, drawn at the place of the same epochs: "
        "the gap between its dot and the blue line is the measured gain.",
    ),
    "structure": (
        "The network's shape",
        "Parameters and weight layers along the epochs that count, and the units of every channel group (parameter "
        "slices that have to change together). In colour: changed; grey or white: as in the seed network.",
    ),
    "gains": (
        "What each edit promised and what it brought",
        "Grey is the gain predicted before the edit, green or red the gain measured: the validation loss of the "
        "control minus that of the trial. Bars of like length mean a good prediction; a red bar to the left "
        "is an edit that made things worse and was undone.",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """A key figure."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A growth event in the table."""

    number: int
    epoch: int
    what: str
    trigger: str
    evidence: tuple[str, ...]
    cost: tuple[str, ...]
    predicted: str
    measured: str
    losses: str
    output_change: str
    outcome: str
    reason: str
    alternatives: tuple[str, ...]
    mutation: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """All words of a report."""

    title: str
    headline: str
    tiles: tuple[Tile, ...]
    rows: tuple[Row, ...]
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
        rows=tuple(_row(event, summary) for event in summary.growth),
        facts=_facts(summary),
        config=_as_text(started.config),
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
        Tile(name="Peak memory", value=in_bytes(summary.peak_memory_bytes), note="of the whole process"),
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


def _row(event: GrowthEvent, summary: RunSummary) -> Row:
    loss_pair = event.control_loss is not None and event.trial_loss is not None
    return Row(
        number=event.number,
        epoch=event.epoch,
        what=event.description,
        trigger=event.trigger or UNKNOWN,
        evidence=_evidence(event),
        cost=_cost(event, summary),
        predicted=UNKNOWN if event.predicted_gain is None else in_gain(event.predicted_gain),
        measured=UNKNOWN if event.measured_gain is None else in_gain(event.measured_gain),
        losses=f"{in_loss(event.trial_loss or 0.0)} against {in_loss(event.control_loss or 0.0)}" if loss_pair else "",
        output_change=UNKNOWN if event.output_change is None else in_magnitude(event.output_change),
        outcome=event.outcome,
        reason=event.reason or "",
        alternatives=_alternatives(event),
        mutation=_as_text(list(event.mutations)),
    )


def _evidence(event: GrowthEvent) -> tuple[str, ...]:
    if event.evidence is None or event.evidence_spread is None or event.num_samples is None:
        return ()
    if event.num_samples == 0:
        return ("not scored", *_score_cost(event))
    value, spread = in_magnitude(event.evidence), in_magnitude(event.evidence_spread)
    name = f"{event.score} score".replace("_", " ").lstrip()
    return (f"{name} {value}", f"± {spread}, {in_number_of(event.num_samples, 'sample')}", *_score_cost(event))


def _score_cost(event: GrowthEvent) -> tuple[str, ...]:
    """Says what scoring all candidates took, and what it might have taken."""
    if not event.score_flops_allowed:
        return ()
    took = in_flops_range(event.score_flops or 0, event.score_flops_allowed).replace("→", "of")
    return (f"took {took} allowed",)


def _cost(event: GrowthEvent, summary: RunSummary) -> tuple[str, ...]:
    parts = []
    if event.added_parameters is not None:
        parts.append(f"{in_change(event.added_parameters)} parameters")
    if event.added_flops is not None:
        earlier = [e.flops for e in summary.main_line if e.epoch < event.first_epoch]
        base = earlier[-1] if earlier else summary.flops_start
        parts.append(f"{in_relative_change(event.added_flops, base)} FLOPs")
    return tuple(parts) or (UNKNOWN,)


def _alternatives(event: GrowthEvent) -> tuple[str, ...]:
    """Says what else was possible: the next best candidates and what uniform placement would have done."""
    lines = [_runner_up(other) for other in event.runners_up]
    if event.uniform_choice:
        lines.append(f"uniform placement would choose: {event.uniform_choice}{_same(event, event.uniform_choice)}")
    if event.evidence_choice:
        lines.append(f"highest score per added FLOP: {event.evidence_choice}{_same(event, event.evidence_choice)}")
    if event.num_candidates:
        candidates = in_number_of(event.num_candidates, "candidate")
        scored = "" if event.num_scored is None else f", {event.num_scored} of them scored"
        lines.append(f"{candidates} in all{scored}, policy {event.policy}")
    if event.score_remark:
        lines.append(f"no candidate was scored: {event.score_remark}")
    return tuple(lines)


def _same(event: GrowthEvent, choice: str) -> str:
    return " (as was done)" if choice == event.description else ""


def _runner_up(other: dict[str, Any]) -> str:
    names = {"added_flops": "cost", "evidence": "score", "score": "score per added FLOP"}
    numbers = [
        f"{names.get(key, key)} {in_flops(value) if key == 'added_flops' else in_magnitude(value)}"
        for key, value in other.items()
        if isinstance(value, int | float)
    ]
    numbers += ["not scored"] if other.get("evidence", 0) is None else []
    return ", ".join([f"runner-up: {other.get('description', UNKNOWN)}", *numbers])


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


def _as_text(record: dict[str, Any] | list[dict[str, Any]]) -> str:
    return json.dumps(record, indent=2, ensure_ascii=False, default=str)
