"""Element-wise operators: every operand is aligned by broadcasting and shares its axes with the result.

Most are known by torch's own tag ``pointwise``; here are those that it forgets, and those that give parameters a role.
Noise is drawn alike for every unit, so it is not bound to an order; in eval mode the self-test says if it is.
"""

from __future__ import annotations

from neuroexapt.graph.rules.registry import POINTWISE, Dims, RuleResult, rule
from neuroexapt.graph.space import cut, unify
from neuroexapt.graph.values import Call, NotUnderstood, Role, fresh_dims

_GAIN = ("mul", "div", "floor_divide", "true_divide", "_prelu_kernel", "lerp", "addcmul", "addcdiv", "pow")
_SHIFT = ("add", "sub", "rsub")
_UNTAGGED = (
    "bernoulli cauchy complex copysign dropout empty_like exponential feature_dropout fill full_like _fused_dropout "
    "geometric hardswish log_normal log_sigmoid_forward masked_fill native_dropout normal ones_like polar rand_like "
    "randint_like randn_like rrelu_with_noise uniform where zero zeros_like"
).split()


@rule(POINTWISE, *_UNTAGGED)
def elementwise(call: Call) -> RuleResult:
    """y = f(x, ...)."""
    operands = [t for t in call.tensors() if t.dim() > 0]
    dims = call.broadcast(operands, call.out)
    return [dims if output.shape == call.out.shape else fresh_dims(output, "noise") for output in call.outputs]


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
