"""A longer axis as a whole plan, with the refusals that every mutation which makes one has in common."""

from __future__ import annotations

import torch

from neuroexapt.errors import InputError, SurgeryError
from neuroexapt.graph import ChannelGroup, ModelGraph
from neuroexapt.surgery.growth.growing import freed_attention, tensor_edits
from neuroexapt.surgery.growth.units import Units
from neuroexapt.surgery.plan import Plan

MAX_UNITS = 1 << 24  # a plan holds the old index of every new unit: 128 MiB at most for one axis


def grown(
    graph: ModelGraph, group: ChannelGroup, to: int, generator: torch.Generator, units: Units | None = None
) -> Plan:
    """Returns the plan that gives a group more units, and what the code ties to it.

    Args:
        graph: The model.
        group: Of the graph.
        to: Its new number of units.
        generator: Of random entries.
        units: How its units begin; silently by default, or where that is impossible as even copies.

    Raises:
        SurgeryError: It cannot grow to this size without changing the function.
    """
    if group.static_reason:
        raise refused(group, to, group.static_reason)
    if to > MAX_UNITS:
        raise refused(group, to, f"an axis can have {MAX_UNITS:,} units at most")
    if group.grows_by_factor and to % group.size:
        raise refused(
            group,
            to,
            f"{group.readers[0]} reads across the axis, so its units can only be copied, all equally often; give a "
            f"multiple of {group.size}",
        )
    resizing = graph.resizing({group.leaf: to})
    if resizing.refusal:
        raise refused(group, to, resizing.refusal)
    try:
        edits = tensor_edits(graph, resizing, generator, {} if units is None else {group.leaf: units})
    except SurgeryError as error:
        raise refused(group, to, str(error)) from error
    freed = freed_attention(graph, resizing.sizes)
    return Plan(tensors=edits, attributes=resizing.attributes, freed=freed)


def group_at(graph: ModelGraph, axis: str) -> ChannelGroup:
    """Returns a channel group by its name.

    Raises:
        SurgeryError: There is none, or more than one.
    """
    try:
        return graph.group(axis)
    except InputError as error:
        raise SurgeryError(str(error)) from error


def refused(group: ChannelGroup, to: int, reason: str) -> SurgeryError:
    """Returns the error that says why a group cannot get that many units."""
    return SurgeryError(
        f"{group.name}: cannot widen from {group.size} to {to} units: {reason}. "
        "Choose another size or group; `graph.groups` lists what each admits."
    )
