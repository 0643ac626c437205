"""Dead units: those that the model's outputs do not depend on, by the weights alone, whatever the input.

A unit is dead if at every operation that sums over its axis it is multiplied by zeros, or is zero itself: the rows that
make it, their biases and the shifts of norms are zero, and only functions that keep zeros lie between (``vanishing``).
Operations that see how many units there are (a mean, a layer norm, a softmax over the axis) leave no unit dead.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from neuroexapt.graph import FACTORS, ModelGraph, Operation, Space, is_meta, leaves, named_tensors, region, vanishing
from neuroexapt.surgery.growth.by_unit import sum_by_unit, unit_indices
from neuroexapt.surgery.writing.masks import effective

_BLIND_TO_ZEROS = frozenset({"sum", "linalg_vector_norm", "norm", "_weight_norm_interface"})


def dead_units(graph: ModelGraph, leaf: Space) -> Tensor:
    """Returns boolean ``[size]``: which units can go without changing the function in eval or in train mode.

    Of a model on the meta device nothing is known, so none is.
    """
    dead = torch.full((leaf.size,), not is_meta(graph.model))
    tensors = named_tensors(graph.model)
    for operation in graph.tape:
        if not bool(dead.any()):
            break
        if any(leaf in leaves(c.space) for c in operation.contractions) or _reads(operation, leaf):
            dead &= _ignored(graph, tensors, operation, leaf)
    return dead


def _reads(operation: Operation, leaf: Space) -> bool:
    return any(leaf in leaves(space) for space in operation.reads)


def _ignored(graph: ModelGraph, tensors: Mapping[str, Tensor], operation: Operation, leaf: Space) -> Tensor:
    """Which units an operation gets nothing from."""
    ignored = torch.zeros(leaf.size, dtype=torch.bool)
    found = [c for c in operation.contractions if leaf in leaves(c.space)]
    sides: list[int | None] = []
    if operation.name in FACTORS:
        first, second, _ = FACTORS[operation.name]
        sides = [operation.number(first), operation.number(second)]
    elif "scaled_dot_product" in operation.name:
        sides = [operation.number("query"), operation.number("key")]
    elif operation.name in _BLIND_TO_ZEROS:
        sides = [operation.inputs[0]]
    elif not found or _reads(operation, leaf):
        return ignored
    for contraction in found:
        value = graph.tape.values[contraction.operand]
        dims = value.parameter_dims[contraction.dim] if value.parameter is not None else frozenset()
        if len(dims) == 1 and value.parameter is not None:
            ignored |= ~_entries(graph, tensors, value.parameter, tuple(dims), leaf, None)
    for number in sides:
        if number is not None:
            ignored |= _zero(graph, tensors, number, leaf)
    return ignored


def _zero(graph: ModelGraph, tensors: Mapping[str, Tensor], number: int, leaf: Space) -> Tensor:
    """Units at which a tensor is zero because all that makes it there is."""
    makers = vanishing(graph.tape, number, leaf)
    zero = torch.full((leaf.size,), bool(makers))
    for maker in makers:
        dims = graph.parameters[maker.parameter].dims
        inside = region(dims, maker.picks, {})
        holding = tuple(dim for dim, space in enumerate(dims) if leaf in leaves(space))
        if inside is None:
            return torch.zeros(leaf.size, dtype=torch.bool)
        zero &= ~_entries(graph, tensors, maker.parameter, holding, leaf, inside)
    return zero


def _entries(
    graph: ModelGraph,
    tensors: Mapping[str, Tensor],
    path: str,
    dims: tuple[int, ...],
    leaf: Space,
    inside: Tensor | None,
) -> Tensor:
    """Units with an entry other than zero along these dimensions of a parameter."""
    live = effective(tensors, path) != 0
    if inside is not None:
        live = live & inside.to(live.device)
    found = torch.zeros(leaf.size, dtype=torch.bool)
    for dim in dims:
        units = unit_indices(graph.parameters[path].dims[dim], leaf)
        if units is None:
            return torch.ones(leaf.size, dtype=torch.bool)
        found |= sum_by_unit(live, dim, units, leaf.size) > 0
    return found
