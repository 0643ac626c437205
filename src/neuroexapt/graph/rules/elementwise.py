"""Element-wise operators: every operand is aligned by broadcasting and shares its axes with the result."""

from __future__ import annotations

from neuroexapt.graph.rules.registry import Dims, RuleResult, rule
from neuroexapt.graph.space import cut, unify
from neuroexapt.graph.values import Call, NotUnderstood, Role, fresh_dims

_GAIN = ("mul", "div", "floor_divide", "true_divide", "_prelu_kernel", "lerp", "addcmul", "addcdiv", "pow")
_SHIFT = ("add", "sub", "rsub")
_PLAIN = (
    "abs acos asin atan atan2 bernoulli bitwise_and bitwise_not bitwise_or bitwise_xor ceil celu clamp clamp_max "
    "clamp_min copysign cos cosh elu eq erf erfc erfinv exp exp2 expm1 fill floor fmax fmin fmod frac ge gelu gt "
    "hardshrink hardsigmoid hardswish hardtanh heaviside isfinite isinf isnan le leaky_relu log log10 log1p log2 "
    "log_sigmoid_forward logical_and logical_not logical_or logical_xor logit lt masked_fill maximum minimum mish "
    "nan_to_num native_dropout ne neg normal ones_like rand_like randn_like reciprocal relu relu6 remainder round "
    "rrelu_with_noise rsqrt selu sgn sigmoid sign silu sin sinh softplus softshrink sqrt square tan tanh "
    "threshold trunc uniform where xlogy zero zeros_like empty_like full_like exponential dropout _fused_dropout "
).split()


@rule(*_PLAIN)
def elementwise(call: Call) -> RuleResult:
    """y = f(x, ...)."""
    operands = [t for t in call.tensors() if t.dim() > 0]
    dims = call.broadcast(operands, call.out)
    return [dims if output.shape == call.out.shape else fresh_dims(output) for output in call.outputs]


@rule(*_GAIN)
def gain(call: Call) -> RuleResult:
    """y = x * w; a parameter among the operands multiplies units."""
    _roles(call, Role.GAIN)
    return elementwise(call)


@rule(*_SHIFT)
def shift(call: Call) -> RuleResult:
    """y = x + b; a parameter among the operands is added to units."""
    _roles(call, Role.SHIFT)
    return elementwise(call)


def _roles(call: Call, role: Role) -> None:
    operands = call.tensors()
    if all(call.value(t).parameter is not None for t in operands):
        return  # arithmetic on parameters alone, such as a counter of batches
    for tensor in operands:
        for dim in range(tensor.dim()):
            if tensor.shape[dim] != 1:
                call.role(tensor, dim, role)


@rule("glu")
def gated_linear_unit(call: Call) -> Dims:
    """a * sigmoid(b) for the halves a, b of one dimension (Dauphin et al. 2017, eq. 1): the halves are one axis."""
    dims = list(call.dims(call["self"]))
    dim = call.get("dim", -1) % len(dims)
    first, second = cut(dims[dim], call.out.shape[dim])
    if first is None or second is None:
        raise NotUnderstood("nothing to halve")
    unify(first, second)
    dims[dim] = first
    return dims


@rule("copy")
def copy(call: Call) -> Dims:
    """The destination takes over the source's axes."""
    return call.broadcast([call["self"], call["src"]], call["self"])


@rule("cumsum", "cumprod", "flip", "roll", "tril", "triu", "logcumsumexp", "constant_pad_nd")
def ordered(call: Call) -> Dims:
    """The order of the indices matters, so the axes that it acts on are pinned."""
    tensor = call["self"]
    dims = list(call.dims(tensor))
    for dim in _acted_on(call):
        call.pins([dims[dim]], "the order of its indices matters")
        if call.out.shape[dim] != tensor.shape[dim]:
            dims[dim] = call.broadcast([], call.out)[dim]
    return dims


def _acted_on(call: Call) -> list[int]:
    rank = call["self"].dim()
    if call.operator == "aten.constant_pad_nd":
        pad = call["pad"]
        return [rank - 1 - i for i in range(len(pad) // 2) if pad[2 * i] or pad[2 * i + 1]]
    if call.operator in ("aten.tril", "aten.triu"):
        return [rank - 2, rank - 1]
    wanted = call.get("dim", call.get("dims", range(rank)))
    wanted = [wanted] if isinstance(wanted, int) else list(wanted)
    return [d % rank for d in wanted] or list(range(rank))
