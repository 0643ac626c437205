"""Matrix products and convolutions: an axis is summed away, another is produced."""

from __future__ import annotations

from torch import Tensor

from neuroexapt.graph.rules.registry import Dims, rule
from neuroexapt.graph.space import Space, product, split_major, unify
from neuroexapt.graph.values import Call, NotUnderstood, Role, fresh


@rule("mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "addmv", "mv", "dot")
def matrix_product(call: Call) -> Dims:
    """out[..., i, j] = sum_k a[..., i, k] b[..., k, j] (+ bias)."""
    name = call.operator.removeprefix("aten.")
    if name in ("matmul", "linear", "addmv", "mv", "dot"):
        return _general(call, name)
    a, b = _operands(call)
    call.contract(a, a.dim() - 1, b, b.dim() - 2)
    call.role(b, b.dim() - 1, Role.PRODUCE)
    call.role(a, a.dim() - 2, Role.PRODUCE)
    dims = [call.dims(a)[-2], call.dims(b)[-1]]
    if a.dim() == 3:
        if a.shape[0] != 1:
            unify(call.dims(a)[0], call.dims(b)[0])
        dims.insert(0, call.dims(a)[0])
    if name in ("addmm", "baddbmm"):
        _add_bias(call, call["self"], dims)
    return dims


def _operands(call: Call) -> tuple[Tensor, Tensor]:
    if "batch1" in call.arguments:
        return call["batch1"], call["batch2"]
    if "mat1" in call.arguments:
        return call["mat1"], call["mat2"]
    return call["self"], call["mat2"]


def _general(call: Call, name: str) -> Dims:
    if name == "linear":
        x, weight = call["input"], call["weight"]
        call.contract(x, x.dim() - 1, weight, 1)
        call.role(weight, 0, Role.PRODUCE)
        dims = [*call.dims(x)[:-1], call.dims(weight)[0]]
        if call.get("bias") is not None:
            _add_bias(call, call["bias"], dims)
        return dims
    if name == "mv":
        call.contract(call["self"], 1, call["vec"], 0)
        return [call.dims(call["self"])[0]]
    raise NotUnderstood("a product of this form has no rule")


def _add_bias(call: Call, bias: Tensor, dims: list[Space]) -> None:
    shift = len(dims) - bias.dim()
    for index, space in enumerate(call.dims(bias)):
        if bias.shape[index] != 1:
            unify(dims[index + shift], space)
            call.role(bias, index, Role.SHIFT)


@rule("convolution", "_convolution", "conv2d", "conv1d", "conv3d")
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
        raise NotUnderstood("a grouped transposed convolution")
    else:
        channels = _grouped(call, x, weight, groups)
    if call.get("bias") is not None:
        unify(call.dims(call["bias"])[0], channels)
        call.role(call["bias"], 0, Role.SHIFT)
    spatial = [fresh(int(size), "spatial extent") for size in call.out.shape[2:]]
    return [call.dims(x)[0], channels, *spatial]


def _dense(call: Call, x: Tensor, weight: Tensor, transposed: bool) -> Space:
    in_dim, out_dim = (0, 1) if transposed else (1, 0)
    call.contract(x, 1, weight, in_dim)
    call.role(weight, out_dim, Role.PRODUCE)
    return call.dims(weight)[out_dim]


def _grouped(call: Call, x: Tensor, weight: Tensor, groups: int) -> Space:
    out_axis = call.dims(weight)[0]
    halves_in = split_major([call.dims(x)[1]], groups)
    halves_out = split_major([out_axis], groups)
    if halves_in is None or halves_out is None:
        raise NotUnderstood(f"the channels do not divide into {groups} groups")
    unify(product(halves_in[0]), product(halves_out[0]))
    if weight.shape[1] != 1:
        unify(product(halves_in[1]), call.dims(weight)[1])
        call.consume(weight, 1, product(halves_in[1]))
    call.role(weight, 0, Role.PRODUCE)
    return out_axis
