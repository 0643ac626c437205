"""What becomes of every tensor when the units of one axis are copied k times: it is multiplied by a power of k.

Means, variances and maxima do not notice; a sum over the axis is k times as large, a softmax over it 1/k, a Euclidean
norm sqrt(k). Where a parameter reads the axis its entries take the factor back; where two activations are contracted,
the makers of one of them do (a *repair*). An addition of tensors with different powers, or a non-linearity of one with
a power other than 0, cannot be mended, and the axis cannot grow this way.

This is the exact way through a norm over the grown axis (Wang et al. 2024, LEMON, section 3; Gesmundo & Maile 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from neuroexapt.graph.makers import FACTORS
from neuroexapt.graph.rules import VIEW_RULES
from neuroexapt.graph.space import Space, leaves, resolve
from neuroexapt.graph.tape import Operation, Ref, Tape
from neuroexapt.graph.values import Value

ZERO, ONE, HALF = Fraction(0), Fraction(1), Fraction(1, 2)
TINY = 1e-5  # a bound below which clamping a norm from below is no change in practice; every edit is verified


@dataclass(frozen=True, slots=True)
class Repair:
    """One of these tensors must be multiplied by k to the ``power``, through its makers."""

    tensors: tuple[int, ...]
    power: Fraction


@dataclass(frozen=True, slots=True)
class Copies:
    """How a model takes copies of the units of one axis.

    Attributes:
        powers: For a parameter and a dimension that reads the axis: its entries are multiplied by k to this power.
        repairs: What else must be multiplied.
        read: Tensors that those parameters read, which had better not be what a repair multiplies.
    """

    powers: dict[tuple[str, int], Fraction]
    repairs: tuple[Repair, ...]
    read: tuple[int, ...] = ()


class Unmendable(Exception):
    """Copying units changes the function, for the reason in the message."""


def copies(tape: Tape, leaf: Space, outputs: Sequence[int]) -> Copies:
    """Follows k copies of every unit of ``leaf`` through the forward.

    Raises:
        Unmendable: The function would change.
    """
    follow = _Follow(tape, leaf)
    for operation in tape:
        follow.step(operation)
    if any(follow.power(number) for number in outputs):
        raise Unmendable("the model's output would be scaled")
    return Copies(follow.powers, tuple(follow.repairs), tuple(follow.read) if follow.repairs else ())


class _Follow:
    def __init__(self, tape: Tape, leaf: Space) -> None:
        self.tape = tape
        self.leaf = leaf
        self.powers: dict[tuple[str, int], Fraction] = {}
        self.repairs: list[Repair] = []
        self.read: list[int] = []
        self._power: dict[int, Fraction] = {}
        self._holding: dict[Space, bool] = {}

    def power(self, number: int) -> Fraction:
        return self._power.get(number, ZERO)

    def holds(self, space: Space) -> bool:
        node = resolve(space)
        if node not in self._holding:
            self._holding[node] = self.leaf in leaves(node)
        return self._holding[node]

    def value(self, number: int) -> Value:
        return self.tape.values[number]

    def reads(self, operation: Operation) -> bool:
        """Whether the operation mixes the units of the axis; a part of a longer axis cannot be copied alone."""
        read = [space for space in operation.reads if self.holds(space)]
        if any(not is_even(space, self.leaf) for space in read):
            raise Unmendable(f"{operation} reads across an axis of which these units are only a part")
        return bool(read)

    def step(self, operation: Operation) -> None:
        inputs = operation.inputs
        contracts = any(self.holds(c.space) for c in operation.contractions)
        if not contracts and not any(map(self.power, inputs)) and not any(map(self.holds, operation.reads)):
            return
        handler = _HANDLERS.get(operation.name)
        if handler is None and operation.name in VIEW_RULES:
            handler = _same
        power = (handler or _nonlinear)(self, operation)
        if power:
            self._power.update(dict.fromkeys(operation.outputs, power))


def is_even(space: Space, leaf: Space) -> bool:
    """Whether copying the units of ``leaf`` copies every index of ``space`` equally often."""
    node = resolve(space)
    if node.form == "sum":
        return all(is_even(part, leaf) for part in node.parts)
    if node.form == "product":
        return any(is_even(part, leaf) for part in node.parts)
    return node is leaf


def _nonlinear(follow: _Follow, operation: Operation) -> Fraction:
    if follow.reads(operation):
        raise Unmendable(f"{operation} reads across the axis, so new units would change the old ones")
    if any(map(follow.power, operation.inputs)):
        raise Unmendable(f"{operation} is not linear in what copies of the units would scale")
    return ZERO


def _same(follow: _Follow, operation: Operation) -> Fraction:
    powers = {follow.power(number) for number in operation.inputs}
    if len(powers) > 1 or follow.reads(operation):
        raise Unmendable(f"{operation} joins what copies of the units scale with what they do not")
    return powers.pop()


def _first(follow: _Follow, operation: Operation) -> Fraction:
    follow.reads(operation)
    return follow.power(operation.inputs[0])


def _add(follow: _Follow, operation: Operation) -> Fraction:
    power = _same(follow, operation)
    if power and len(operation.inputs) < 2:
        raise Unmendable(f"{operation} adds a number to what copies of the units would scale")
    return power


def _multiply(follow: _Follow, operation: Operation) -> Fraction:
    return sum(map(follow.power, operation.inputs), ZERO)


def _divide(follow: _Follow, operation: Operation) -> Fraction:
    above, *below = operation.inputs
    if not isinstance(operation.arguments.get("self"), Ref):
        return -follow.power(above)
    return follow.power(above) - sum(map(follow.power, below), ZERO)


def _exponent(follow: _Follow, operation: Operation) -> Fraction:
    exponent = operation.arguments.get("exponent")
    power = follow.power(operation.inputs[0])
    if not power or not isinstance(exponent, (int, float)):
        return _nonlinear(follow, operation)
    return power * Fraction(exponent)


def _times(factor: Fraction) -> Callable[[_Follow, Operation], Fraction]:
    return lambda follow, operation: follow.power(operation.inputs[0]) * factor


def _clamp(follow: _Follow, operation: Operation) -> Fraction:
    low, high = operation.arguments.get("min"), operation.arguments.get("max")
    is_guard = isinstance(low, (int, float)) and 0 < low <= TINY and high is None
    return follow.power(operation.inputs[0]) if is_guard else _nonlinear(follow, operation)


def _sum(follow: _Follow, operation: Operation) -> Fraction:
    return follow.power(operation.inputs[0]) + (ONE if follow.reads(operation) else ZERO)


def _euclidean(follow: _Follow, operation: Operation) -> Fraction:
    order = operation.arguments.get("ord", operation.arguments.get("p"))
    order = 2 if order is None else order
    if not isinstance(order, (int, float)) or not 0 < order < float("inf"):
        return _nonlinear(follow, operation)
    return follow.power(operation.inputs[0]) + (ONE / Fraction(order) if follow.reads(operation) else ZERO)


def _softmax(follow: _Follow, operation: Operation) -> Fraction:
    if follow.power(operation.inputs[0]):
        return _nonlinear(follow, operation)
    return -ONE if follow.reads(operation) else ZERO


def _variance(follow: _Follow, operation: Operation) -> Fraction:
    correction = operation.arguments.get("correction", operation.arguments.get("unbiased"))
    if follow.power(operation.inputs[0]) or (follow.reads(operation) and (correction is None or correction)):
        return _nonlinear(follow, operation)
    return ZERO


def _norm(follow: _Follow, operation: Operation) -> Fraction:
    if any(map(follow.power, operation.inputs)):
        return _nonlinear(follow, operation)
    follow.reads(operation)
    return ZERO


def _contraction(follow: _Follow, operation: Operation) -> Fraction:
    first, second, added = FACTORS[operation.name]
    factors = [n for n in (operation.number(first), operation.number(second)) if n is not None]
    power = sum(map(follow.power, factors), ZERO)
    for contraction in operation.contractions:
        if follow.holds(contraction.space):
            power = _read(follow, operation, contraction.operand, contraction.dim, contraction.space, factors)
    bias = operation.number(added) if added else None
    if bias is not None and power != follow.power(bias):
        raise Unmendable(f"{operation} adds a bias to what copies of the units would scale")
    return power


def _read(
    follow: _Follow, operation: Operation, operand: int, dim: int, space: Space, factors: Sequence[int]
) -> Fraction:
    """Takes the factor of a sum over copied units back and returns the power that is left."""
    power = sum(map(follow.power, factors), ZERO) + ONE
    weight = follow.value(operand)
    if weight.parameter is not None and is_only_read(follow.tape, operand):
        for source in weight.parameter_dims[dim % len(weight.parameter_dims)]:
            if follow.powers.setdefault((weight.parameter, source), -power) != -power:
                raise Unmendable(f"{weight.parameter} reads the axis twice, at different scales")
        follow.read += [n for n in factors if n != operand]
        return ZERO
    if not is_even(space, follow.leaf):
        raise Unmendable(f"{operation} sums over an axis of which these units are only a part")
    if power:
        others = [n for n in factors if n != operand]
        tensors = [operand] if weight.derived_from else [*others, operand]
        if weight.parameter is not None:  # tied: what it makes elsewhere must stay
            tensors = others
        follow.repairs.append(Repair(tuple(tensors), -power))
    return ZERO


def _weight_norm(follow: _Follow, operation: Operation) -> Fraction:
    """w = g v / |v|: copies in c dimensions make |v| larger by k to the c / 2, which g takes back."""
    kept = int(operation.arguments["dim"])
    direction = follow.value(operation.inputs[0])
    counted = [s for i, s in enumerate(direction.dims) if i != kept % len(direction.dims) and follow.holds(s)]
    if any(map(follow.power, operation.inputs)) or not all(is_even(space, follow.leaf) for space in counted):
        return _nonlinear(follow, operation)
    if counted:
        follow.repairs.append(Repair(operation.outputs[:1], HALF * len(counted)))
    return ZERO


def _attention(follow: _Follow, operation: Operation) -> Fraction:
    query, key, value = (operation.number(name) for name in ("query", "key", "value"))
    if query is None or key is None or value is None:
        return _nonlinear(follow, operation)
    power = follow.power(query) + follow.power(key)
    if follow.holds(follow.value(query).dims[-1]):
        follow.reads(operation)
        power += ONE
        if power:
            follow.repairs.append(Repair((query, key), -power))
    elif power or any(follow.holds(space) for space in operation.reads):
        return _nonlinear(follow, operation)
    return follow.power(value)


def is_only_read(tape: Tape, operand: int) -> bool:
    """Whether the parameter behind an operand is used by contractions only, each time through a reading dimension."""
    name = tape.values[operand].parameter
    for operation in tape:
        numbers = [n for n in operation.inputs if tape.values[n].parameter == name]
        if not numbers or operation.name in VIEW_RULES:
            continue
        readers = {c.operand for c in operation.contractions}
        if any(number not in readers for number in numbers):
            return False
    return True


_Handler = Callable[[_Follow, Operation], Fraction]
_HANDLERS: dict[str, _Handler] = {
    **dict.fromkeys(("cat", "stack", "where", "maximum", "minimum"), _same),
    **dict.fromkeys(("add", "sub"), _add),
    **dict.fromkeys(
        "neg relu leaky_relu abs native_dropout dropout mean amax amin max min cumsum flip roll constant_pad_nd index "
        "index_select gather repeat avg_pool2d _adaptive_avg_pool2d max_pool2d_with_indices".split(),
        _first,
    ),
    "mul": _multiply,
    "div": _divide,
    "pow": _exponent,
    "sqrt": _times(HALF),
    "rsqrt": _times(-HALF),
    "square": _times(Fraction(2)),
    "reciprocal": _times(-ONE),
    **dict.fromkeys(("clamp_min", "clamp"), _clamp),
    "sum": _sum,
    **dict.fromkeys(("linalg_vector_norm", "norm"), _euclidean),
    **dict.fromkeys(("_softmax", "softmax", "_safe_softmax"), _softmax),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), _variance),
    **dict.fromkeys(
        "native_layer_norm _fused_rms_norm rms_norm native_group_norm native_batch_norm _native_batch_norm_legit "
        "_native_batch_norm_legit_no_training _batch_norm_with_update _batch_norm_no_update".split(),
        _norm,
    ),
    **dict.fromkeys(FACTORS, _contraction),
    "_weight_norm_interface": _weight_norm,
    **dict.fromkeys(
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention".split(),
        _attention,
    ),
}
