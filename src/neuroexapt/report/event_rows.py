"""Rows of the table of growth events, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuroexapt.report.growth import GrowthEvent
from neuroexapt.report.quantities import (
    in_change,
    in_flops,
    in_flops_range,
    in_gain,
    in_interval,
    in_loss,
    in_magnitude,
    in_number_of,
    in_relative_change,
    in_signed_percent,
)
from neuroexapt.report.summary import RunSummary

UNKNOWN = "–"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A growth event in the table; of several lines in a cell, the later ones are small print."""

    number: int
    position: str
    edits: tuple[str, ...]
    trigger: str
    strictness: str
    evidence: tuple[str, ...]
    cost: tuple[str, ...]
    predicted: tuple[str, ...]
    measured: tuple[str, ...]
    output_change: str
    outcome: str
    verdict: tuple[str, ...]
    alternatives: tuple[str, ...]
    mutations: str


def event_rows(summary: RunSummary) -> tuple[Row, ...]:
    """Returns a row for each growth event, in order."""
    rows, flops = [], summary.flops_start
    for event in summary.growth:
        rows.append(_row(event, flops))
        if event.outcome == "accepted":
            flops += event.added_flops or 0
    return tuple(rows)


def strictness_in_words(strictness: Mapping[str, float]) -> str:
    """Returns how strict triggers have become: ``strictness: interval 1.35``; nothing before the first event."""
    told = ", ".join(f"{name} {value:.2f}" for name, value in strictness.items())
    return f"strictness: {told}" if told else ""


def as_text(record: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    """Returns a value as indented JSON."""
    return json.dumps(record, indent=2, ensure_ascii=False, default=str)


def _row(event: GrowthEvent, flops: int) -> Row:
    return Row(
        number=event.number,
        position=f"{event.position:.4g}",
        edits=event.edits,
        trigger=event.trigger or UNKNOWN,
        strictness=strictness_in_words(event.strictness),
        evidence=_evidence(event),
        cost=_cost(event, flops),
        predicted=_predicted(event),
        measured=_measured(event),
        output_change=UNKNOWN if event.output_change is None else in_magnitude(event.output_change),
        outcome=event.outcome,
        verdict=_verdict(event),
        alternatives=_alternatives(event),
        mutations=as_text(event.mutations),
    )


def _predicted(event: GrowthEvent) -> tuple[str, ...]:
    if event.predicted_gain is None:
        return (UNKNOWN,)
    nats = f"{in_gain(event.predicted_gain)} nats"
    share = event.relative_prediction
    return (nats,) if share is None else (in_signed_percent(share), nats)


def _measured(event: GrowthEvent) -> tuple[str, ...]:
    if event.relative_gain is None or event.measured_gain is None:
        return (UNKNOWN,)
    interval = (in_interval(*event.interval),) if event.interval else ()
    return (in_signed_percent(event.relative_gain), *interval, f"{in_gain(event.measured_gain)} nats")


def _verdict(event: GrowthEvent) -> tuple[str, ...]:
    """Says what was asked for, over how many steps, and the losses; the reason in words where nothing was measured."""
    lines = []
    if event.needed is not None:
        lines.append(f"asked for: {in_signed_percent(event.needed)}")
    elif event.reason:
        lines.append(event.reason)
    if event.trial_steps:
        lines.append(f"after {in_number_of(event.trial_steps, 'step')} of each arm")
    if event.control_loss is not None and event.trial_loss is not None:
        lines.append(f"loss {in_loss(event.trial_loss)} against {in_loss(event.control_loss)}")
    if event.discarded_flops:
        lines.append(f"{in_flops(event.discarded_flops)} given up")
    return tuple(lines)


def _evidence(event: GrowthEvent) -> tuple[str, ...]:
    if event.evidence is None or event.evidence_spread is None or event.num_samples is None:
        return ()
    if event.num_samples == 0:
        return ("not scored",)
    value, spread = in_magnitude(event.evidence), in_magnitude(event.evidence_spread)
    name = f"{event.score} score".replace("_", " ").lstrip()
    return (f"{name} {value}", f"± {spread}, {in_number_of(event.num_samples, 'sample')}")


def _cost(event: GrowthEvent, flops: int) -> tuple[str, ...]:
    """Says what the edits add, FLOPs against the ``flops`` per sample before them."""
    parts = []
    if event.added_parameters is not None:
        parts.append(f"{in_change(event.added_parameters)} parameters")
    if event.added_flops is not None:
        parts.append(f"{in_relative_change(event.added_flops, flops)} FLOPs")
    if event.cost is not None:
        parts.append(f"in one: {event.cost:+.3f}")
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
    if event.score_flops_allowed:
        took = in_flops_range(event.score_flops or 0, event.score_flops_allowed).replace("→", "of")
        lines.append(f"scoring took {took} allowed")
    if event.score_remark:
        lines.append(f"no candidate was scored: {event.score_remark}")
    return tuple(lines)


def _same(event: GrowthEvent, choice: str) -> str:
    if choice not in event.edits:
        return ""
    return " (as was done)" if len(event.edits) == 1 else " (is among those made)"


def _runner_up(other: dict[str, Any]) -> str:
    names = {"added_flops": "cost", "evidence": "score", "score": "score per added FLOP"}
    numbers = [
        f"{names.get(key, key)} {in_flops(value) if key == 'added_flops' else in_magnitude(value)}"
        for key, value in other.items()
        if isinstance(value, int | float)
    ]
    numbers += ["not scored"] if other.get("evidence", 0) is None else []
    return ", ".join([f"runner-up: {other.get('description', UNKNOWN)}", *numbers])
