"""Convolutions: the input channels are summed away, the output channels are produced, positions move."""

from __future__ import annotations

from torch import Tensor

from neuroexapt.graph.rules.halves import halved
from neuroexapt.graph.rules.registry import Dims, rule
from neuroexapt.graph.space import Space, product, unify
from neuroexapt.graph.values import Call, NotUnderstood, Role, fresh


@rule("convolution", "_convolution", "convolution_overrideable")
def convolution(call: Call) -> Dims:
    """Dense, grouped, depthwise and transposed convolutions of any number of spatial dimensions.

    With G groups the input axis is (G, I/G) and the output axis (G, O/G); the weight is [O, I/G, ...], transposed
    [I, O/G, ...]. Growing I/G or O/G widens every group; growing G adds groups.
    """
    x, weight, groups = call["input"], call["weight"], call.get("groups", 1)
    if x.dim() != weight.dim():
        raise NotUnderstood("an unbatched input")
    call.pins(call.dims(weight)[2:], "the kernel's extent")
    transposed = bool(call.get("transposed", False))
    if groups == 1:
        channels = _dense(call, x, weight, transposed)
    elif transposed:
        channels = _grouped_transposed(call, x, weight, groups)
    else:
        channels = _grouped(call, x, weight, groups)
    if call.get("bias") is not None:
        unify(call.dims(call["bias"])[0], channels)
        call.role(call["bias"], 0, Role.SHIFT)
    return [call.dims(x)[0], channels, *_positions(call, x, weight)]


def _positions(call: Call, x: Tensor, weight: Tensor) -> list[Space]:
    """A kernel of one passes positions through as they are; any other mixes neighbours."""
    result = []
    for at, space in enumerate(call.dims(x)[2:]):
        stride, padding = _setting(call, "stride", at, 1), _setting(call, "padding", at, 0)
        if weight.shape[at + 2] == 1 and stride == 1 and padding == 0 and x.shape[at + 2] == call.out.shape[at + 2]:
            result.append(space)
        else:
            call.pins([space], "spatial extent")
            result.append(fresh(int(call.out.shape[at + 2]), "spatial extent"))
    return result


def _setting(call: Call, name: str, at: int, default: int) -> int:
    values = call.get(name, [default])
    return int(values[at] if len(values) > at else values[0])


def _dense(call: Call, x: Tensor, weight: Tensor, transposed: bool) -> Space:
    in_dim, out_dim = (0, 1) if transposed else (1, 0)
    call.contract(x, 1, weight, in_dim)
    call.role(weight, out_dim, Role.PRODUCE)
    return call.dims(weight)[out_dim]


def _grouped(call: Call, x: Tensor, weight: Tensor, groups: int) -> Space:
    out_axis = call.dims(weight)[0]
    (groups_in, units_in), (groups_out, _) = halved(call, call.dims(x)[1], groups), halved(call, out_axis, groups)
    unify(groups_in, groups_out)
    if weight.shape[1] != 1:
        unify(units_in, call.dims(weight)[1])
        call.consume(weight, 1, units_in)
    call.role(weight, 0, Role.PRODUCE)
    return out_axis


def _grouped_transposed(call: Call, x: Tensor, weight: Tensor, groups: int) -> Space:
    in_axis = call.dims(weight)[0]
    unify(call.dims(x)[1], in_axis)
    count, units = halved(call, in_axis, groups)
    if units.size == 1:
        call.role(weight, 0, Role.PRODUCE)
    else:
        call.consume(weight, 0, units)
    call.role(weight, 1, Role.PRODUCE)
    return product([count, call.dims(weight)[1]])
