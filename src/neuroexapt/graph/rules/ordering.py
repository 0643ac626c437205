"""Operators to which the order of the indices matters: the axes that they act on are pinned, the others pass."""

from __future__ import annotations

from torch import Tensor

from neuroexapt.graph.rules.registry import Dims, RuleResult, rule
from neuroexapt.graph.space import Space, resolve
from neuroexapt.graph.values import Call, fresh

_WHY = "the order of its indices matters"


def acted_on(call: Call, tensor: Tensor) -> list[int]:
    """Returns the dimensions that an operator's ``dim`` or ``dims`` name; all where it names none."""
    wanted = call.get("dim", call.get("dims"))
    wanted = [wanted] if isinstance(wanted, int) else list(wanted or [])
    return [d % tensor.dim() for d in wanted] or list(range(tensor.dim()))


def pinned_at(call: Call, tensor: Tensor, where: list[int], output: Tensor, why: str) -> list[Space]:
    """Pins some dimensions of a tensor; returns all of them, as the output has them, with those made anew."""
    dims = call.dims(tensor)
    call.pins([dims[d] for d in where], why)
    return [
        fresh(int(output.shape[d]), resolve(space).pin_reason) if d in where else space for d, space in enumerate(dims)
    ]


@rule("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin", "flip", "roll", "sort", "argsort", "topk")
def ordered(call: Call) -> RuleResult:
    """The result at an index depends on which index it is, or on which others there are."""
    tensor = call["self"]
    where = acted_on(call, tensor) if call.operator != "aten.topk" else [call.get("dim", -1) % tensor.dim()]
    return [pinned_at(call, tensor, where, output, _WHY) for output in call.outputs]


@rule("tril", "triu")
def triangle(call: Call) -> Dims:
    """Row and column numbers are compared."""
    rank = call["self"].dim()
    return pinned_at(call, call["self"], [rank - 2, rank - 1], call.out, _WHY)


@rule("rot90")
def quarter_turn(call: Call) -> Dims:
    """Two dimensions, one or both of them reversed."""
    return pinned_at(call, call["self"], acted_on(call, call["self"]), call.out, _WHY)


@rule("_fft_r2c", "_fft_c2r", "_fft_c2c")
def fourier_transform(call: Call) -> Dims:
    """Positions become frequencies."""
    return pinned_at(call, call["self"], acted_on(call, call["self"]), call.out, "positions become frequencies")


@rule("argmax", "argmin", "median", "nanmedian", "mode", "kthvalue")
def index_of(call: Call) -> RuleResult:
    """The result is, or comes with, the number of an index."""
    return picked(call, call["self"], acted_on(call, call["self"]))


def picked(call: Call, tensor: Tensor, where: list[int]) -> list[list[Space]]:
    """Reduces pinned dimensions away, or to a single index."""
    dims = call.dims(tensor)
    call.pins([dims[d] for d in where], "the number of an index is its result")
    kept = [space for d, space in enumerate(dims) if d not in where]
    same_rank = [Space(1) if d in where else space for d, space in enumerate(dims)]
    return [same_rank if output.dim() == tensor.dim() else kept for output in call.outputs]


@rule("bucketize", "searchsorted")
def bucketize(call: Call) -> Dims:
    """The number of the bucket that each value falls into."""
    bounds = call.get("boundaries", call.get("sorted_sequence"))
    call.pins(call.dims(bounds), "buckets are numbered")
    return call.dims(call["self"])


@rule("histc")
def histogram(call: Call) -> Dims:
    """How many values fall into each bin."""
    call.pins(call.dims(call["self"]), "values are counted")
    return [fresh(int(call.out.shape[0]), "bins are numbered")]
