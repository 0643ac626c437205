"""How the units of one axis can grow in number without changing the function.

*Silent* units: random fan-in, zero fan-out; where two activations are contracted (queries with keys) one of them gets
zeros at the new units. Where an operation reads across the axis (a norm, a mean, a softmax) new units would change the
old ones, unless all units are *copied* the same number of times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neuroexapt.graph.copies import Copies, Unmendable, copies, is_only_read
from neuroexapt.graph.makers import FACTORS, Maker, dividing, scaling, vanishing
from neuroexapt.graph.space import Space, leaves
from neuroexapt.graph.tape import Operation, Tape


@dataclass(frozen=True, slots=True)
class Silent:
    """Any number of new units, with zeros where these makers hold them."""

    zeros: frozenset[Maker]


# Of a weight these see no zeros; of an activation zeros would have to stay for ever.
_BLIND_TO_ZEROS = frozenset({"_weight_norm_interface", "linalg_vector_norm", "norm", "sum"})

Growth = Silent | Copies


def growth(tape: Tape, leaf: Space, outputs: Sequence[int]) -> Growth | str:
    """Returns how an axis can grow, or the reason why it cannot.

    Args:
        tape: Of a forward in eval mode.
        leaf: The axis.
        outputs: Numbers of the model's outputs.
    """
    readings = [operation for operation in tape if _mixes(tape, operation, leaf)]
    silenced = [_silencing(tape, operation, leaf) for operation in readings]
    if all(silenced):
        return Silent(frozenset().union(*silenced))
    try:
        found = copies(tape, leaf, outputs)
    except Unmendable as error:
        return str(error)
    for repair in found.repairs:
        if not any(scaling(tape, number) for number in repair.tensors):
            return f"{readings[0]} reads across the axis, and nothing that makes its operands could be rescaled"
    return found


@dataclass(frozen=True, slots=True)
class Division:
    """What must be multiplied by a unit's share where a unit is divided among copies.

    Attributes:
        readers: Parameters and the dimension through which each reads the axis.
        makers: Of one operand of every contraction of two activations over the axis.
    """

    readers: frozenset[tuple[str, int]]
    makers: frozenset[Maker]


def division(tape: Tape, leaf: Space) -> Division | str:
    """Returns what must be multiplied by a unit's share, or the reason why units cannot be divided.

    Wherever a silent unit gets zeros a copy gets its share, but only a proportional way takes shares along.
    """
    found: set[Maker] = set()
    readers: set[tuple[str, int]] = set()
    for operation in tape:
        for contraction in operation.contractions:
            weight = tape.values[contraction.operand]
            if weight.parameter is not None and leaf in leaves(contraction.space):
                if all(tape.values[number].derived_from for number in operation.inputs):
                    return f"{operation} reads the axis to compute a weight"
                if not is_only_read(tape, contraction.operand):
                    return f"{weight.parameter} both reads and makes the units"
                dims = weight.parameter_dims[contraction.dim % len(weight.parameter_dims)]
                readers |= {(weight.parameter, dim) for dim in dims}
        if _mixes(tape, operation, leaf):
            sides = [dividing(tape, number, leaf) for number in _sides(operation)]
            makers = next((side for side in sides if side), None)
            if makers is None:
                return f"{operation} reads across the axis, and nothing that it reads is proportional to a parameter"
            found |= makers
    return Division(frozenset(readers), frozenset(found))


def _mixes(tape: Tape, operation: Operation, leaf: Space) -> bool:
    """Whether an operation mixes the units of the axis otherwise than through a parameter that reads them."""
    return any(leaf in leaves(space) for space in operation.reads)


def _silencing(tape: Tape, operation: Operation, leaf: Space) -> frozenset[Maker]:
    """Returns makers whose zeros keep new units out of a contraction; empty where it is none or none is found."""
    sides = _sides(operation)
    if operation.name in _BLIND_TO_ZEROS and tape.values[operation.inputs[0]].derived_from:
        sides = [operation.inputs[0]]
    return next((found for side in sides if (found := vanishing(tape, side, leaf))), frozenset())


def _sides(operation: Operation) -> list[int]:
    """Returns the operands of a contraction, the one that had better be changed first."""
    names: tuple[str, ...] = ()
    if operation.name in FACTORS:
        first, second, _ = FACTORS[operation.name]
        names = (second, first)
    elif "scaled_dot_product" in operation.name:
        names = ("key", "query")
    return [number for name in names if (number := operation.number(name)) is not None]
