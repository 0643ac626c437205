"""Importance by how large a unit's activations are on calibration data."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from neuroexapt.graph import ChannelGroup, ModelGraph
from neuroexapt.surgery.removal.importance.flows import scored
from neuroexapt.surgery.removal.importance.magnitude import magnitude


def activation(graph: ModelGraph, groups: Sequence[ChannelGroup]) -> list[Tensor]:
    """Root of the summed squares of what the readers of a unit get, averaged over the samples.

    In the spirit of Hu et al. 2016, Network Trimming (which counts zeros). Where no reader can be watched, the outputs
    of the layers that make the unit; where neither can, its ``magnitude``.
    """
    seen = scored(graph, groups, lambda value, gradient: value.abs().square(), gradients=False)
    weights = magnitude(graph, groups)
    return [w if rows is None else rows.mean(0).sqrt() for rows, w in zip(seen, weights, strict=True)]
