"""``bottlenecks``: what was measured of every layer, turned into needs that can be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neuroexapt.analysis.evidence import Evidence
from neuroexapt.analysis.measuring import ModelEvidence
from neuroexapt.analysis.needs.percentiles import MIDDLE, is_told_from, percentiles
from neuroexapt.analysis.needs.quantities import quantities
from neuroexapt.analysis.needs.report import BottleneckReport, LayerNeeds, Need
from neuroexapt.analysis.needs.table import NEEDS, OF_UNITS, Signal

RAISED = 0.75  # signals that agree on a layer in the upper quarter of the model
KEPT = 0.6  # a raised need falls below this, nearly back in the middle, before it is dropped: noise does not toggle it

Quantities = Mapping[str, Mapping[str, Evidence]]


def bottlenecks(evidence: ModelEvidence, previous: BottleneckReport | None = None) -> BottleneckReport:
    """Turns evidence into needs of every layer: wider, deeper, path, attention, less.

    A need is the mean of the percentiles of its signals among the model's layers (``analysis.needs.table``), so it says
    where a model would use a change first, and not whether it needs any. It is *raised* from ``RAISED`` on and stays so
    until it falls below ``KEPT``.

    Args:
        evidence: From ``measure_evidence``.
        previous: An earlier report of this model, whose raised needs stay raised for longer.
    """
    found = quantities(evidence)
    outputs = {layer.path for layer in evidence.layers if not layer.successors}
    told: dict[str, dict[str, Need]] = {layer.path: {} for layer in evidence.layers}
    before = {layer.path: layer.needs for layer in previous.layers} if previous else {}
    for name, signals in NEEDS.items():
        left_out = outputs if name in OF_UNITS and len(outputs) < len(evidence.layers) else set()
        for path, entries in _entries(signals, found, left_out).items():
            if not any(entry.is_measured and not entry.is_support for entry in entries):
                continue
            score = math.fsum(entry.strength for entry in entries) / len(entries)  # in whatever order
            was_raised = name in before.get(path, {}) and before[path][name].is_raised
            entries.sort(key=lambda entry: (entry.is_support, -entry.strength))
            told[path][name] = Need(
                score=score,
                is_raised=score >= (KEPT if was_raised else RAISED),
                reasons=tuple(entry.reason for entry in entries),
            )
    return BottleneckReport(
        layers=tuple(LayerNeeds(path=la.path, width=la.width, needs=told[la.path]) for la in evidence.layers),
        edges=evidence.edges,
        notes=("one layer: there is no other to compare it with",) if len(evidence.layers) == 1 else (),
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """How far one signal speaks for a need of one layer, in [0, 1]."""

    strength: float
    reason: str
    is_support: bool
    is_measured: bool = True


def _entries(signals: Sequence[Signal], found: Quantities, left_out: set[str]) -> dict[str, list[_Entry]]:
    """Returns what every signal says, by layer; one that some layers lack is neutral there."""
    entries: dict[str, list[_Entry]] = {path: [] for path in found if path not in left_out}
    for signal in signals:
        paths = [path for path in entries if signal.quantity in found[path]]
        if not paths:
            continue
        readings = [found[path][signal.quantity] for path in paths]
        places = dict(zip(paths, percentiles(readings, signal.null), strict=True))
        for path, told in entries.items():
            if path not in places:
                told.append(_Entry(MIDDLE, f"{_words(signal)}: not measured here", signal.is_support, False))
                continue
            strength = places[path] if signal.side == "high" else 1.0 - places[path]
            reason = _reason(signal, found[path][signal.quantity], places[path], len(paths) - 1)
            told.append(_Entry(strength, reason, signal.is_support))
    return entries


def _words(signal: Signal) -> str:
    return signal.quantity.replace("_", " ")


def _reason(signal: Signal, reading: Evidence, percentile: float, num_others: int) -> str:
    value = f"{_words(signal)} {reading.value:.3g} [{reading.low:.3g}, {reading.high:.3g}]"
    if not num_others:
        return f"{value}: no other layer to compare it with"
    if signal.null is not None and not is_told_from(reading, signal.null):
        return f"{value}: not told from {signal.null:g}"
    speaks_for_it = (percentile > MIDDLE) == (signal.side == "high")
    idea = f"{signal.idea}: " if speaks_for_it else ""
    others = "1 other" if num_others == 1 else f"{num_others} others"
    return f"{idea}{value}, {_place(percentile)} {others}"


def _place(percentile: float) -> str:
    """Says how many of the others are below or above, whichever is more."""
    side, share = ("above", percentile) if percentile >= MIDDLE else ("below", 1.0 - percentile)
    return f"{side} all of" if share > 0.995 else f"{side} {100 * share:.0f} % of"
