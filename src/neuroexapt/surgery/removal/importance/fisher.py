"""Importance by how much the loss of single samples would change without a unit, squared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuroexapt.graph import ChannelGroup, ModelGraph
from neuroexapt.surgery.removal.importance.flows import scored
from neuroexapt.surgery.removal.importance.taylor import first_order


def fisher(graph: ModelGraph, groups: Sequence[ChannelGroup]) -> list[Tensor]:
    """Mean over samples of the squared sum of activation times gradient over a unit's positions and readers.

    The empirical Fisher information of a mask on the unit (Theis et al. 2018, Faster gaze prediction with dense
    networks and Fisher pruning), summed over a group's layers before squaring (Liu et al. 2021, Group Fisher Pruning).
    Where nothing can be watched it is the square of ``taylor``.
    """
    seen = scored(graph, groups, _product, gradients=True)
    missing = [group for group, rows in zip(groups, seen, strict=True) if rows is None]
    instead = iter(first_order(graph, missing))
    return [next(instead).square() if rows is None else rows.square().mean(0) for rows in seen]


def _product(value: Tensor, gradient: Tensor | None) -> Tensor:
    return torch.zeros_like(value) if gradient is None else value * gradient
