"""What the needs are read off: the values of every layer, and what follows from several of them.

| quantity | of | is |
|---|---|---|
| idle_fraction | dead_fraction, constant_fraction | their sum: units that never change |
| unread_information | label_information | the most that can be read off a later layer, less what can be read here |
| information_lost | edges | the most that is surely lost on an edge that begins or ends here |

What a later layer shows of the label was in this layer already (data processing inequality), so the unread information
is a lower bound of what a linear reader misses here. It holds along the executed graph: only layers that this one's
output reaches count, and only as far as no other way past it brings in more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from neuroexapt.analysis.evidence import Evidence
from neuroexapt.analysis.measuring import LayerEvidence, ModelEvidence

INFORMATION = "label_information"
CONTEXT = "context_fraction"


def quantities(evidence: ModelEvidence) -> dict[str, Mapping[str, Evidence]]:
    """Returns path -> name -> value, for every watched layer."""
    return {
        layer.path: {**_own(layer), **_idle(layer), **_unread(evidence, layer), **_lost(evidence, layer)}
        for layer in evidence.layers
    }


def _own(layer: LayerEvidence) -> Mapping[str, Evidence]:
    """A layer with one position has no surroundings that it does not see."""
    return {name: value for name, value in layer.values.items() if name != CONTEXT or layer.num_positions != 1}


def _idle(layer: LayerEvidence) -> dict[str, Evidence]:
    parts = [layer.values[name] for name in ("dead_fraction", "constant_fraction") if name in layer.values]
    return {"idle_fraction": _combined(parts, [1.0] * len(parts))} if parts else {}


def _unread(evidence: ModelEvidence, layer: LayerEvidence) -> dict[str, Evidence]:
    here = layer.values.get(INFORMATION)
    later = [evidence.layer(path).values for path in _behind(evidence, layer)]
    found = [values[INFORMATION] for values in later if INFORMATION in values]
    if here is None or not found:
        return {}
    return {"unread_information": _combined([max(found, key=lambda e: e.low), here], [1.0, -1.0])}


def _lost(evidence: ModelEvidence, layer: LayerEvidence) -> dict[str, Evidence]:
    own = [edge.value for edge in evidence.edges if layer.path in (edge.source, edge.target)]
    return {"information_lost": max(own, key=lambda e: e.low)} if own else {}


def _behind(evidence: ModelEvidence, layer: LayerEvidence) -> Iterator[str]:
    """Yields the watched layers that this one's output reaches."""
    known = {other.path: other for other in evidence.layers}
    waiting, seen = list(layer.successors), {layer.path}
    while waiting:
        path = waiting.pop()
        if path not in seen and path in known:
            seen.add(path)
            waiting += known[path].successors
            yield path


def _combined(parts: list[Evidence], factors: list[float]) -> Evidence:
    """Returns a weighted sum; errors are taken as independent, which those of shared samples are at worst."""
    value = sum(factor * part.value for part, factor in zip(parts, factors, strict=True))
    down = math.hypot(*(p.value - p.low if f > 0 else p.high - p.value for p, f in zip(parts, factors, strict=True)))
    up = math.hypot(*(p.high - p.value if f > 0 else p.value - p.low for p, f in zip(parts, factors, strict=True)))
    return Evidence(
        value=value,
        spread=math.hypot(*(part.spread for part in parts)),
        low=value - down,
        high=value + up,
        num_samples=min(part.num_samples for part in parts),
        estimator=parts[0].estimator,
        num_bytes=max(part.num_bytes for part in parts),
    )
