"""Views that keep every axis whole: permutations, dimensions of size 1, strides, repetitions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from neuroexapt.graph.rules.registry import DimensionMap, Dims, rule, view_rule
from neuroexapt.graph.space import Space, product
from neuroexapt.graph.values import Call, NotUnderstood, fresh


def identity(call: Call) -> tuple[list[Space], list[frozenset[int]]]:
    """The dimensions of the viewed tensor, and where each comes from."""
    dims = list(call.dims(call["self"]))
    return dims, [frozenset({i}) for i in range(len(dims))]


def pick(call: Call, order: Sequence[int]) -> DimensionMap:
    """Some of the dimensions, in some order."""
    dims, sources = identity(call)
    return DimensionMap(tuple(dims[i] for i in order), tuple(sources[i] for i in order))


@view_rule(
    "detach", "alias", "clone", "_to_copy", "contiguous", "lift_fresh", "_conj", "conj_physical", "positive", "to",
    "real", "imag", "resolve_conj", "resolve_neg",
)  # fmt: skip
def same(call: Call) -> DimensionMap:
    """The tensor itself, perhaps copied or cast."""
    return pick(call, range(call.out.dim()))


@view_rule("t", "numpy_T")
def reverse(call: Call) -> DimensionMap:
    """All dimensions in reverse."""
    return pick(call, range(call.out.dim())[::-1])


@view_rule("transpose")
def transpose(call: Call) -> DimensionMap:
    """Two dimensions change places."""
    order = list(range(call.out.dim()))
    a, b = call["dim0"], call["dim1"]
    order[a], order[b] = order[b], order[a]
    return pick(call, order)


@view_rule("permute")
def permute(call: Call) -> DimensionMap:
    """Dimensions in a given order."""
    return pick(call, [d % call.out.dim() for d in call["dims"]])


@view_rule("unsqueeze")
def unsqueeze(call: Call) -> DimensionMap:
    """A dimension of size 1 more."""
    dims, sources = identity(call)
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
    return pick(call, [i for i in range(len(shape)) if not (i in chosen and shape[i] == 1)])


@view_rule("expand", "broadcast_to")
def expand(call: Call) -> DimensionMap:
    """Dimensions of size 1 repeated: a new axis along which nothing changes, so any order of it will do."""
    dims, sources = identity(call)
    shape, shift = call["self"].shape, call.out.dim() - len(dims)
    result, origin = [], []
    for i, size in enumerate(call.out.shape):
        kept = i >= shift and shape[i - shift] == size
        result.append(dims[i - shift] if kept else fresh(size))
        origin.append(sources[i - shift] if kept else frozenset())
    return DimensionMap(tuple(result), tuple(origin))


@rule("repeat")
def repeat(call: Call) -> Dims:
    """Copies side by side: (copy, index) of every dimension."""
    dims = list(call.dims(call["self"]))
    copies = [int(n) for n in call["repeats"]]
    dims = [Space(1)] * (len(copies) - len(dims)) + dims
    return [product([fresh(n), space]) for n, space in zip(copies, dims, strict=True)]


@view_rule("as_strided")
def as_strided(call: Call) -> DimensionMap:
    """Only what is a permutation or an expansion of the tensor: each stride is that of one of its dimensions."""
    tensor, dims, sources = call["self"], *identity(call)
    unused = [i for i in range(tensor.dim()) if tensor.shape[i] > 1 and tensor.stride(i) > 0]
    result, origin = [], []
    for size, stride in zip(call["size"], call["stride"], strict=True):
        if size == 1 or stride == 0:
            result.append(fresh(size))
            origin.append(frozenset[int]())
            continue
        found = next((i for i in unused if (tensor.shape[i], tensor.stride(i)) == (size, stride)), None)
        if found is None:
            raise NotUnderstood("strides that are not those of a permutation")
        unused.remove(found)
        result.append(dims[found])
        origin.append(sources[found])
    if unused or _offset(call, tensor) != tensor.storage_offset():
        raise NotUnderstood("strides that leave a part of the tensor out")
    return DimensionMap(tuple(result), tuple(origin))


def _offset(call: Call, tensor: Tensor) -> int:
    return int(call.get("storage_offset", tensor.storage_offset()))


@view_rule("view_as_complex")
def view_as_complex(call: Call) -> DimensionMap:
    """[..., 2] -> [...]."""
    call.pins([call.dims(call["self"])[-1]], "real and imaginary part")
    return pick(call, range(call["self"].dim() - 1))


@view_rule("view_as_real")
def view_as_real(call: Call) -> DimensionMap:
    """[...] -> [..., 2]."""
    dims, sources = identity(call)
    return DimensionMap((*dims, fresh(2, "real and imaginary part")), (*sources, frozenset()))


@view_rule("diagonal")
def diagonal(call: Call) -> DimensionMap:
    """Indices where two dimensions agree; their order matters."""
    rank = call["self"].dim()
    pair = {call.get("dim1", 0) % rank, call.get("dim2", 1) % rank}
    dims, sources = identity(call)
    call.pins([dims[d] for d in pair], "a diagonal is taken")
    kept = [d for d in range(rank) if d not in pair]
    last = fresh(int(call.out.shape[-1]), "a diagonal is taken")
    return DimensionMap((*(dims[d] for d in kept), last), (*(sources[d] for d in kept), frozenset(pair)))
