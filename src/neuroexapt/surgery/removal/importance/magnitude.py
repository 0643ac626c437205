"""Importance by the size of the weights that make a unit and of those that read it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuroexapt.graph import ChannelGroup, Member, ModelGraph, Role, named_tensors
from neuroexapt.surgery.growth.by_unit import sum_by_unit, unit_indices
from neuroexapt.surgery.writing.masks import effective


def magnitude(graph: ModelGraph, groups: Sequence[ChannelGroup]) -> list[Tensor]:
    """Root of the mean, over the group's layers, of the squared L2 norm of a unit's slices.

    Li et al. 2017, Pruning Filters for Efficient ConvNets, section 3.1, over the whole group as in Fang et al. 2023,
    DepGraph, section 3.3. Weights under a pruning mask count as zero.
    """
    tensors = named_tensors(graph.model)
    found = []
    for group in groups:
        total = torch.zeros(group.size, dtype=torch.float64)
        counted = weights_of(group)
        for member in counted:
            units = unit_indices(graph.parameters[member.path].dims[member.dim], group.leaf)
            if units is not None:
                squares = effective(tensors, member.path).abs().double().square()
                total += sum_by_unit(squares, member.dim, units, group.size)
        found.append((total / max(len(counted), 1)).sqrt())
    return found


def weights_of(group: ChannelGroup) -> list[Member]:
    """Returns the members that are matrices that make or read the units, or all that there are."""
    makers = {Role.PRODUCE, Role.CONSUME}
    return [member for member in group.members if makers & member.roles] or list(group.members)
