"""Importance by how much the loss would change without a unit, to first order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuroexapt.graph import ChannelGroup, Member, ModelGraph, Role, named_tensors
from neuroexapt.surgery.checking.measure import measure
from neuroexapt.surgery.growth.by_unit import sum_by_unit, unit_indices
from neuroexapt.surgery.removal.importance.magnitude import weights_of


def taylor(graph: ModelGraph, groups: Sequence[ChannelGroup]) -> list[Tensor]:
    """``|sum of weight * gradient|`` over a unit's slices in the layers that read it.

    The root of eq. 8 of Molchanov et al. 2019, Importance Estimation for Neural Network Pruning, of the mean loss on
    calibration data. Setting the reading weights to zero removes the unit, so its other slices would count it again;
    where no layer reads the axis those that make it are taken.
    """
    return first_order(graph, groups)


def first_order(graph: ModelGraph, groups: Sequence[ChannelGroup]) -> list[Tensor]:
    """See ``taylor``; runs nothing where there are no groups."""
    if not groups:
        return []
    gradients, tensors = measure(graph, [], gradients=True).gradients, named_tensors(graph.model)
    found = []
    for group in groups:
        total = torch.zeros(group.size, dtype=torch.float64)
        for member in _readers(group):
            units = unit_indices(graph.parameters[member.path].dims[member.dim], group.leaf)
            if units is not None and member.path in gradients:
                change = (tensors[member.path].detach() * gradients[member.path].conj()).real.double()
                total += sum_by_unit(change, member.dim, units, group.size)
        found.append(total.abs())
    return found


def _readers(group: ChannelGroup) -> list[Member]:
    return [member for member in group.members if Role.CONSUME in member.roles] or weights_of(group)
