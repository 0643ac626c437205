"""Views: permutations, reshapes, slices and splits of one tensor."""

from __future__ import annotations

from collections.abc import Sequence

from neuroexapt.graph.rules.registry import DimensionMap, view_rule
from neuroexapt.graph.space import Space, cut, product, split_major
from neuroexapt.graph.values import Call, NotUnderstood, fresh


def _identity(call: Call, name: str = "self") -> tuple[list[Space], list[frozenset[int]]]:
    dims = list(call.dims(call[name]))
    return dims, [frozenset({i}) for i in range(len(dims))]


def _pick(call: Call, order: Sequence[int]) -> DimensionMap:
    dims, sources = _identity(call)
    return DimensionMap(tuple(dims[i] for i in order), tuple(sources[i] for i in order))


@view_rule("detach", "alias", "clone", "_to_copy", "contiguous", "lift_fresh", "_conj", "positive", "to")
def same(call: Call) -> DimensionMap:
    """The tensor itself, perhaps copied or cast."""
    return _pick(call, range(call.out.dim()))


@view_rule("t", "numpy_T")
def reverse(call: Call) -> DimensionMap:
    """All dimensions in reverse."""
    return _pick(call, range(call.out.dim())[::-1])


@view_rule("transpose")
def transpose(call: Call) -> DimensionMap:
    """Two dimensions change places."""
    order = list(range(call.out.dim()))
    a, b = call["dim0"], call["dim1"]
    order[a], order[b] = order[b], order[a]
    return _pick(call, order)


@view_rule("permute")
def permute(call: Call) -> DimensionMap:
    """Dimensions in a given order."""
    return _pick(call, [d % call.out.dim() for d in call["dims"]])


@view_rule("unsqueeze")
def unsqueeze(call: Call) -> DimensionMap:
    """A dimension of size 1 more."""
    dims, sources = _identity(call)
    at = call["dim"] % call.out.dim()
    dims.insert(at, Space(1))
    sources.insert(at, frozenset())
    return DimensionMap(tuple(dims), tuple(sources))


@view_rule("squeeze")
def squeeze(call: Call) -> DimensionMap:
    """Dimensions of size 1 less."""
    shape = call["self"].shape
    wanted = call.get("dim", range(len(shape)))
    chosen = {d % len(shape) for d in (wanted if not isinstance(wanted, int) else [wanted])} if len(shape) else set()
    return _pick(call, [i for i in range(len(shape)) if not (i in chosen and shape[i] == 1)])


@view_rule("expand", "broadcast_to")
def expand(call: Call) -> DimensionMap:
    """Dimensions of size 1 repeated; the repetition is a size written in the code."""
    dims, sources = _identity(call)
    shape, shift = call["self"].shape, call.out.dim() - len(dims)
    result, origin = [], []
    for i, size in enumerate(call.out.shape):
        kept = i >= shift and shape[i - shift] == size
        result.append(dims[i - shift] if kept else fresh(size, "size of an expand"))
        origin.append(sources[i - shift] if kept else frozenset())
    return DimensionMap(tuple(result), tuple(origin))


@view_rule("view", "_unsafe_view", "reshape", "_reshape_alias", "_reshape_copy", "flatten", "unflatten", "view_copy")
def view(call: Call) -> DimensionMap:
    """Regroups the row-major indices: factors are split and merged, and refined where a boundary falls inside one."""
    tensor, shape = call["self"], list(call.out.shape)
    rest: list[Space] = [space for space in call.dims(tensor) if space.size != 1]
    dims: list[Space] = []
    for size in shape:
        halves = split_major(rest, int(size))
        if halves is None:
            raise NotUnderstood(f"view of {tuple(tensor.shape)} as {tuple(shape)} cuts across an axis")
        dims.append(product(halves[0]))
        rest = halves[1]
    return DimensionMap(tuple(dims), tuple(_overlaps(list(tensor.shape), shape)))


def _overlaps(old: list[int], new: list[int]) -> list[frozenset[int]]:
    """For each new dimension the old ones that share its range of row-major strides."""
    spans, stride = [], 1
    for size in reversed(old):
        spans.append((stride, stride * size))
        stride *= size
    spans.reverse()
    result, stride = [], 1
    for size in reversed(new):
        low, high = stride, stride * size
        result.append(frozenset(i for i, (a, b) in enumerate(spans) if a < high and low < b and b > a and high > low))
        stride = high
    return result[::-1]


def _segment(call: Call, dim: int, piece: Space) -> DimensionMap:
    dims, sources = _identity(call)
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
    """A range of one dimension; a stride larger than one is not followed."""
    tensor, dim = call["self"], call.get("dim", 0) % call["self"].dim()
    size, kept = int(tensor.shape[dim]), int(call.out.shape[dim])
    if kept == size and call.get("step", 1) == 1:
        return _pick(call, range(tensor.dim()))
    start = call.get("start", 0)
    start = max(start + size, 0) if start < 0 else min(start, size)
    if call.get("step", 1) != 1 or kept == 0:
        call.pins([call.dims(tensor)[dim]], "strided or empty slice")
        return _segment(call, dim, fresh(kept, "strided or empty slice"))
    call.start, tail = cut(call.dims(tensor)[dim], start)
    piece, _ = cut(tail, kept) if tail is not None else (None, None)
    return _segment(call, dim, piece if piece is not None and kept != 1 else fresh(kept))


@view_rule("select")
def select(call: Call) -> DimensionMap:
    """One index of a dimension: a literal in the user's code."""
    dim = call["dim"] % call["self"].dim()
    call.pins([call.dims(call["self"])[dim]], f"index {call['index']} is picked")
    return _pick(call, [i for i in range(call["self"].dim()) if i != dim])


@view_rule("unbind")
def unbind(call: Call) -> list[DimensionMap]:
    """Every index of a dimension by itself."""
    dim = call.get("dim", 0) % call["self"].dim()
    call.pins([call.dims(call["self"])[dim]], "unbound into single indices")
    return [_pick(call, [i for i in range(call["self"].dim()) if i != dim]) for _ in call.outputs]
