"""Rows picked by number: embeddings, advanced indexing, gather and scatter.

An axis that is addressed by numbers is pinned; all others pass through, and the axes of the numbers come out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuroexapt.graph.rules.registry import Dims, RuleResult, rule
from neuroexapt.graph.space import Space, unify
from neuroexapt.graph.values import Call, NotUnderstood, Role, fresh, fresh_dims

_ADDRESSED = "rows are addressed by number"


@rule("embedding")
def embedding(call: Call) -> Dims:
    """Rows of a table: the row axis is addressed by the data, the other one is produced."""
    weight = call["weight"]
    call.pins([call.dims(weight)[0]], "rows are addressed by the input")
    call.role(weight, 1, Role.PRODUCE)
    return [*call.dims(call["indices"]), call.dims(weight)[1]]


@rule("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(call: Call) -> RuleResult:
    """Sums or means of rows of a table."""
    weight = call["weight"]
    call.pins([call.dims(weight)[0]], "rows are addressed by the input")
    call.pins(call.dims(call["indices"]), "positions in bags")
    call.role(weight, 1, Role.PRODUCE)
    bags = fresh(int(call.out.shape[0]), "number of bags")
    return [(bags, call.dims(weight)[1]), *(fresh_dims(o, "internal to the bags") for o in call.outputs[1:])]


@rule("index")
def index(call: Call) -> Dims:
    """``x[i, :, j]``: the axes of the index tensors stand where those that they address stood (NumPy's rule)."""
    tensor = call["self"]
    if any(call.value(t).is_activation for t in call["indices"] if t is not None):
        for dim in range(tensor.dim()):
            call.role(tensor, dim, Role.PRODUCE)
    return _indexed(call, tensor)


@rule("index_put", "_index_put_impl", "_unsafe_index_put")
def index_put(call: Call) -> Dims:
    """``x[i, :, j] = y``, or ``x[mask] = y``."""
    mask = [t for t in call["indices"] if t is not None]
    if len(mask) == 1 and mask[0].dtype is torch.bool:
        return _masked_put(call, mask[0])
    target, values = _indexed(call, call["self"]), call["values"]
    for space, size, place in zip(reversed(call.dims(values)), reversed(values.shape), reversed(target), strict=False):
        if size != 1:
            unify(space, place)
    return call.dims(call["self"])


def _masked_put(call: Call, mask: Tensor) -> Dims:
    """The mask lies on the dimensions that it is given for; values that differ there are taken in their order."""
    dims, values = list(call.dims(call["self"])), call["values"]
    first = next(d for d, t in enumerate(call["indices"]) if t is not None)
    masked, behind = dims[first : first + mask.dim()], dims[first + mask.dim() :]
    for space, other in zip(masked, call.dims(mask), strict=True):
        unify(space, other)
    target = [*dims[:first], None, *behind]
    for space, size, place in zip(reversed(call.dims(values)), reversed(values.shape), reversed(target), strict=False):
        if place is None and size != 1:
            call.pins([space, *masked], "values are taken in the order of a mask")
        elif place is not None and size != 1:
            unify(space, place)
    return dims


def _indexed(call: Call, tensor: Tensor) -> list[Space]:
    wanted = list(call["indices"])
    where = [d for d, numbers in enumerate(wanted) if numbers is not None]
    numbers = [wanted[d] for d in where]
    if any(t.dtype in (torch.bool, torch.uint8) for t in numbers):
        raise NotUnderstood("a mask picks as many indices as the data says")
    dims = list(call.dims(tensor))
    call.pins([dims[d] for d in where], _ADDRESSED)
    picked = _broadcast(call, numbers)
    at = where[0] if where[-1] - where[0] + 1 == len(where) else 0
    kept = [space for d, space in enumerate(dims) if d not in where]
    return [*kept[:at], *picked, *kept[at:]]


def _broadcast(call: Call, tensors: Sequence[Tensor]) -> list[Space]:
    rank = max(t.dim() for t in tensors)
    result = [Space(1) for _ in range(rank)]
    for tensor in tensors:
        for place, space in enumerate(call.dims(tensor), start=rank - tensor.dim()):
            if result[place].size == 1:
                result[place] = space
            elif space.size != 1:
                unify(result[place], space)
    return result


@rule("gather")
def gather(call: Call) -> Dims:
    """out[i, j] = x[index[i, j], j] for dim 0."""
    tensor, numbers = call["self"], call["index"]
    dim = call["dim"] % max(tensor.dim(), 1)
    _same_but(call, dim, [tensor, numbers])
    return call.dims(numbers)


@rule("scatter", "scatter_add", "scatter_reduce")
def scatter(call: Call) -> Dims:
    """out = x, but out[index[i, j], j] = src[i, j] for dim 0."""
    tensor, numbers, source = call["self"], call["index"], call.get("src")
    dim = call["dim"] % max(tensor.dim(), 1)
    _same_but(call, dim, [tensor, numbers, *([source] if isinstance(source, Tensor) else [])])
    return call.dims(tensor)


def _same_but(call: Call, dim: int, tensors: list[Tensor]) -> None:
    """Pins one dimension; of the others, those of equal size are one, and a smaller one takes the first indices."""
    first = tensors[0]
    call.pins([call.dims(first)[dim]], _ADDRESSED)
    for tensor in tensors[1:]:
        for d, (space, other) in enumerate(zip(call.dims(first), call.dims(tensor), strict=True)):
            if d == dim:
                call.pins([other], _ADDRESSED)
            elif space.size == other.size:
                unify(space, other)
            else:
                call.pins([space, other], "the first indices are taken")


@rule("index_select", "index_fill")
def index_select(call: Call) -> Dims:
    """Some indices of one dimension."""
    dims = list(call.dims(call["self"]))
    dim = call["dim"] % len(dims)
    call.pins([dims[dim]], _ADDRESSED)
    if call.operator == "aten.index_select":
        dims[dim] = (call.dims(call["index"]) or (Space(1),))[0]
    return dims


@rule("index_add", "index_copy", "index_reduce")
def index_add(call: Call) -> Dims:
    """Slices are added to, or put at, the indices that a vector names."""
    tensor, source = call["self"], call["source"]
    dim = call["dim"] % tensor.dim()
    call.pins([call.dims(tensor)[dim]], _ADDRESSED)
    for d, (space, other) in enumerate(zip(call.dims(tensor), call.dims(source), strict=True)):
        unify(call.dims(call["index"])[0] if d == dim else space, other)
    return call.dims(tensor)
