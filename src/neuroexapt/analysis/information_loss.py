"""How much of what a layer tells about the label the next one no longer tells, along the executed graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuroexapt.analysis.estimators.intervals import standard_error, t_quantile
from neuroexapt.analysis.estimators.probing import LabelProbe, probe_bytes, probe_of
from neuroexapt.analysis.evidence import Evidence
from neuroexapt.analysis.watching import LayerSample, WatchedLayer
from neuroexapt.analysis.watching.defaults import plain_defaults

UNSURE = 0.35  # of a first-order correction, for what it leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeEvidence:
    """What is lost from one layer to another that its output reaches without passing through a third.

    Attributes:
        source: Path of the layer.
        target: Path of its successor.
        value: What a linear probe of the source tells about the label less what one of the target does, in nats, in
            [-H(Y), H(Y)]. Negative where the target makes the label easier to read. Where paths join, the others may
            bring what this one lost; where one forks, others may carry it on.
    """

    source: str
    target: str
    value: Evidence

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON-ready dictionary."""
        return {"source": self.source, "target": self.target, "value": self.value.to_json()}

    @staticmethod
    def from_json(record: dict[str, Any]) -> EdgeEvidence:
        """Rebuilds what ``to_json`` returned."""
        return EdgeEvidence(**{**record, "value": Evidence.from_json(record["value"])})


def information_loss(
    layers: Sequence[WatchedLayer], samples: Mapping[str, LayerSample], max_bytes: int
) -> tuple[EdgeEvidence, ...]:
    """Returns the loss along every edge between layers that have pooled rows and classes.

    A probe that an estimator has fitted is not fitted again. Memory: that of one probe, and three numbers
    for each row of each layer.

    Args:
        layers: In the order in which they run.
        samples: Theirs, by path; row i of each is the same sample.
        max_bytes: For the rows of a layer and its probe; edges of a layer that needs more are left out.
    """
    known: dict[tuple[str, int], _Told | None] = {}

    def told(path: str, count: int) -> _Told | None:
        if (path, count) not in known:
            known[path, count] = _told(samples[path], count, max_bytes)
        return known[path, count]

    edges = []
    for layer in layers:
        for successor in layer.successors:
            if layer.path in samples and successor in samples:
                count = min(len(samples[layer.path]), len(samples[successor]))
                source, target = told(layer.path, count), told(successor, count)
                if source is not None and target is not None:
                    edges.append(EdgeEvidence(source=layer.path, target=successor, value=_loss(source, target)))
    return tuple(edges)


@dataclass(frozen=True, slots=True, eq=False)
class _Told:
    """What one layer tells: the parts of its probe that outlive the fit."""

    value: float
    halfway_value: float
    most: float
    held_out: Tensor
    halfway: Tensor
    num_bytes: int

    @staticmethod
    def of(probe: LabelProbe, num_bytes: int) -> _Told:
        held, halfway = (min(max(mean, 0.0), probe.entropy) for mean in probe.means)
        return _Told(held, halfway, probe.most, probe.held_out, probe.halfway, num_bytes)


def _told(sample: LayerSample, count: int, max_bytes: int) -> _Told | None:
    if sample.pooled is None or sample.targets is None:
        return None
    classes = len(set(sample.targets[:count].tolist()))
    needed = sample.num_bytes + probe_bytes(count, sample.pooled.shape[1], classes)
    if count < len(sample):
        sample = LayerSample(
            features=sample.features[:count],
            low=sample.low,
            high=sample.high,
            pooled=sample.pooled[:count],
            targets=sample.targets[:count],
        )
    if needed > max_bytes:
        return None
    with torch.no_grad(), torch.autocast("cpu", enabled=False), plain_defaults():
        probe = probe_of(sample)
    return None if probe is None else _Told.of(probe, needed)


def _loss(source: _Told, target: _Told) -> Evidence:
    """The difference; as the rows are the same, what one row adds to both does not spread it.

    Few rows lower both values, and not by the same. The interval reaches from the difference of the held-out values to
    that of the corrected ones (``LabelProbe.halfway``), with chance and a share of the larger correction added on both
    sides.
    """
    value = source.value - target.value
    corrected = source.halfway_value - target.halfway_value
    differences = source.held_out - target.held_out, source.halfway - target.halfway
    spread = max(standard_error(difference) for difference in differences)
    correction = max(layer.halfway_value - layer.value for layer in (source, target))
    reach = t_quantile(len(source.held_out) - 1) * spread + UNSURE * max(correction, 0.0)
    most = max(source.most, target.most)
    return Evidence(
        value=value,
        spread=spread,
        low=max(min(value, corrected) - reach, -most),
        high=min(max(value, corrected) + reach, most),
        num_samples=len(source.held_out),
        estimator="information_loss",
        num_bytes=source.num_bytes + target.num_bytes,
    )
