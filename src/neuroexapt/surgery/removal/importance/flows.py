"""Where the units of a group can be watched: at the inputs of the layers that read them, else where they come out.

At the input of a layer a unit's activation times the gradient that comes back through this layer is what the loss would
lose, to first order, if the layer did not get the unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroexapt.graph import ChannelGroup, ModelGraph, Role, leaves
from neuroexapt.surgery.checking.measure import Measured, measure
from neuroexapt.surgery.growth.by_unit import unit_indices
from neuroexapt.surgery.places.neighbours import runs_once


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """A tensor that holds the units.

    Attributes:
        path: Of the module.
        is_input: Whether it is what the module gets; otherwise what it gives.
        dim: The dimension that holds the units.
        units: int64, the unit of every index of that dimension, or -1.
    """

    path: str
    is_input: bool
    dim: int
    units: Tensor


def flows(graph: ModelGraph, group: ChannelGroup) -> list[Flow]:
    """Returns the inputs of all linear and convolutional layers that read the group, else all outputs that hold it."""
    found = [_into(graph, group, member.path, member.dim) for member in group.members if Role.CONSUME in member.roles]
    inputs = [flow for flow in found if flow is not None]
    return inputs or _out_of(graph, group)


def scored(
    graph: ModelGraph,
    groups: Sequence[ChannelGroup],
    per_sample: Callable[[Tensor, Tensor | None], Tensor],
    *,
    gradients: bool,
) -> list[Tensor | None]:
    """Sums a quantity of each unit over all of its flows, for each sample.

    Args:
        graph: The model; it is run once.
        groups: Whose units are watched.
        per_sample: Takes a tensor and the gradient there (``None`` without ``gradients``); returns the same shape.
        gradients: Whether the objective is differentiated.

    Returns:
        For each group float64 ``[samples, size]``, or ``None`` where none of its flows could be seen.
    """
    watched = [flows(graph, group) for group in groups]
    seen = measure(graph, list(dict.fromkeys(f.path for each in watched for f in each)), gradients=gradients)
    return [
        _summed(graph, group, each, seen, per_sample, gradients) for group, each in zip(groups, watched, strict=True)
    ]


def _summed(
    graph: ModelGraph,
    group: ChannelGroup,
    watched: Sequence[Flow],
    seen: Measured,
    per_sample: Callable[[Tensor, Tensor | None], Tensor],
    gradients: bool,
) -> Tensor | None:
    total: Tensor | None = None
    for flow in watched:
        value = (seen.inputs if flow.is_input else seen.outputs).get(flow.path)
        gradient = _gradient(graph, flow, seen) if gradients else None
        if value is None or value.dim() < 2 or (gradients and gradient is None):
            continue
        if gradient is not None:
            count = min(len(value), len(gradient))
            value, gradient = value[:count], gradient[:count]
        quantity = per_sample(value.detach(), gradient).double().movedim(flow.dim, -1).cpu()
        rows = quantity.reshape(len(quantity), -1, quantity.shape[-1]).sum(1)
        kept = flow.units >= 0
        part = torch.zeros(len(rows), group.size, dtype=torch.float64).index_add_(1, flow.units[kept], rows[:, kept])
        if total is None:
            total = part
        elif len(total) == len(part):
            total = total + part
    return total


def _into(graph: ModelGraph, group: ChannelGroup, path: str, dim: int) -> Flow | None:
    module_path = path.rpartition(".")[0]
    module = graph.model.get_submodule(module_path)
    is_layer = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    units = unit_indices(graph.parameters[path].dims[dim], group.leaf)
    if not is_layer or dim != 1 or not runs_once(graph, module_path) or units is None:
        return None
    return Flow(
        module_path, True, -1 if isinstance(module, nn.Linear) else 1, units.repeat(getattr(module, "groups", 1))
    )


def _out_of(graph: ModelGraph, group: ChannelGroup) -> list[Flow]:
    found = []
    for call in graph.calls:
        if call.output is None or not runs_once(graph, call.path) or call.path not in {m.module for m in group.members}:
            continue
        holding = [dim for dim, space in enumerate(call.output.dims) if group.leaf in leaves(space)]
        units = unit_indices(call.output.dims[holding[0]], group.leaf) if len(holding) == 1 and holding[0] else None
        if units is not None:
            found.append(Flow(call.path, False, holding[0], units))
    return found


def _gradient(graph: ModelGraph, flow: Flow, seen: Measured) -> Tensor | None:
    """Gradient at a flow; at a layer's input only the part that comes through this layer."""
    gradient = seen.output_gradients.get(flow.path)
    if gradient is None or not flow.is_input:
        return gradient
    given, layer = seen.inputs[flow.path], graph.model.get_submodule(flow.path)
    count = min(len(given), len(gradient))
    with torch.enable_grad():
        x = given[:count].detach().requires_grad_()
        weight = layer.weight.detach()  # type: ignore[operator]
        y = F.linear(x, weight) if isinstance(layer, nn.Linear) else layer._conv_forward(x, weight, None)  # type: ignore[operator]
        return torch.autograd.grad(y, x, gradient[:count])[0]
