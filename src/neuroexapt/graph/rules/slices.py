"""Parts of one dimension: splits, slices and single indices."""

from __future__ import annotations

from neuroexapt.graph.rules.registry import DimensionMap, Dims, rule, view_rule
from neuroexapt.graph.rules.views import identity, pick
from neuroexapt.graph.space import Space, cut, is_pinned, product, split_major, unify
from neuroexapt.graph.values import Call, NotUnderstood, fresh


def _segment(call: Call, dim: int, piece: Space) -> DimensionMap:
    dims, sources = identity(call)
    dims[dim] = piece
    return DimensionMap(tuple(dims), tuple(sources))


@view_rule("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk")
def split(call: Call) -> list[DimensionMap]:
    """Consecutive segments of one dimension."""
    dim = call.get("dim", 0) % call["self"].dim()
    rest: Space | None = call.dims(call["self"])[dim]
    pieces = []
    for output in call.outputs:
        size = int(output.shape[dim])
        if rest is None or size == 0:
            raise NotUnderstood("an empty segment")
        piece, rest = cut(rest, size)
        pieces.append(_segment(call, dim, piece if piece is not None else fresh(size)))
    return pieces


@view_rule("slice", "narrow")
def slice_(call: Call) -> DimensionMap:
    """A range of one dimension, or every k-th index of it."""
    tensor, dim = call["self"], call.get("dim", 0) % call["self"].dim()
    size, kept, step = int(tensor.shape[dim]), int(call.out.shape[dim]), call.get("step", 1)
    if kept == size:
        return pick(call, range(tensor.dim()))
    start = call.get("start", 0)
    start = max(start + size, 0) if start < 0 else min(start, size)
    if step != 1 or kept == 0:
        return _segment(call, dim, _every(call, call.dims(tensor)[dim], start, kept, step))
    call.start, tail = cut(call.dims(tensor)[dim], start)
    piece, _ = cut(tail, kept) if tail is not None else (None, None)
    return _segment(call, dim, piece if piece is not None and kept != 1 else fresh(kept))


def _every(call: Call, space: Space, start: int, kept: int, step: int) -> Space:
    """Every ``step``-th index: the axis is (kept, step), where the place inside a step is written in the code."""
    divides = kept * step == space.size and start < step and not is_pinned(space)
    halves = split_major([space], kept) if divides else None
    if halves is None:
        call.pins([space], "strided or empty slice")
        return fresh(kept, "strided or empty slice")
    call.pins([product(halves[1])], "place inside a step of a slice")
    return product(halves[0])


@rule("slice_scatter")
def slice_scatter(call: Call) -> Dims:
    """A range of one dimension is replaced."""
    tensor, source = call["self"], call["src"]
    dim, size = call.get("dim", 0) % tensor.dim(), int(tensor.shape[call.get("dim", 0)])
    start = call.get("start", 0)
    if call.get("step", 1) != 1:
        raise NotUnderstood("a strided replacement")
    for d, (space, other) in enumerate(zip(call.dims(tensor), call.dims(source), strict=True)):
        if d == dim:
            _, tail = cut(space, max(start + size, 0) if start < 0 else start)
            piece, _ = cut(tail, other.size) if tail is not None else (None, None)
            unify(piece if piece is not None else space, other)
        else:
            unify(space, other)
    return call.dims(tensor)


@view_rule("select")
def select(call: Call) -> DimensionMap:
    """One index of a dimension: a literal in the user's code."""
    dim = call["dim"] % call["self"].dim()
    call.pins([call.dims(call["self"])[dim]], f"index {call['index']} is picked")
    return pick(call, [i for i in range(call["self"].dim()) if i != dim])


@view_rule("unbind")
def unbind(call: Call) -> list[DimensionMap]:
    """Every index of a dimension by itself."""
    dim = call.get("dim", 0) % call["self"].dim()
    call.pins([call.dims(call["self"])[dim]], "unbound into single indices")
    return [pick(call, [i for i in range(call["self"].dim()) if i != dim]) for _ in call.outputs]
