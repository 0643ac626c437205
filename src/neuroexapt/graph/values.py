"""What the tracer knows of a tensor, and of one call of an operator.

A rule sees a ``Call``: arguments by the names of the operator's schema, the index spaces of every tensor among them,
and the means to say what the operator does to spaces. It returns the spaces of the outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from neuroexapt.graph.space import Reader, Space, leaves, mark, pin, unify

T = TypeVar("T")


class Role(Enum):
    """What a dimension of a parameter does to the axis that it holds; it decides how new slices are filled."""

    PRODUCE = "produce"  # rows that make the units: random at the layer's own scale
    CONSUME = "consume"  # columns that read the units: zero, so that nothing changes
    GAIN = "gain"  # multiplies units
    NORM_GAIN = "norm gain"  # multiplies normalised units: one
    SHIFT = "shift"  # is added to units: zero
    MEAN = "running mean"  # zero
    VARIANCE = "running variance"  # one


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor in the trace.

    Attributes:
        dims: The index space of each dimension.
        parameter: The parameter or buffer that this tensor is a plain view or cast of, if it is one.
        parameter_dims: For each dimension, which dimensions of that parameter it runs over.
        derived_from: Parameters and buffers that it is computed from (itself included), when nothing else takes part.
        is_buffer: Whether ``parameter`` is a buffer, which no optimizer trains.
    """

    dims: tuple[Space, ...]
    parameter: str | None = None
    parameter_dims: tuple[frozenset[int], ...] = ()
    derived_from: frozenset[str] = frozenset()
    is_buffer: bool = False

    @property
    def is_activation(self) -> bool:
        """Whether it depends on the model's input."""
        return not self.derived_from


@dataclass(frozen=True, slots=True)
class Contraction(Generic[T]):
    """A dimension of an operand that is multiplied with another operand and summed away.

    Attributes:
        operand: The operand that reads, usually a weight: a tensor in a rule, its number on the tape.
        dim: Its dimension.
        space: The axis of the other operand that is read.
    """

    operand: T
    dim: int
    space: Space


class NotUnderstood(Exception):
    """Raised by a rule that cannot say what happens to the spaces; the call's spaces are then pinned."""


class Call:
    """One call of an ATen operator, as a rule sees it."""

    def __init__(
        self,
        operator: str,
        module: str,
        arguments: dict[str, Any],
        outputs: list[Tensor],
        values: dict[int, Value],
        roles: dict[tuple[str, int], set[Role]],
        parameters: dict[str, Value],
    ) -> None:
        self.operator = operator
        self.module = module
        self.arguments = arguments
        self.outputs = outputs
        self.start: Space | None = None  # of a slice: the space of the indices before it, if there are any
        self.reads: list[Space] = []
        self.contractions: list[Contraction[Tensor]] = []
        self._values = values
        self._roles = roles
        self._parameters = parameters

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Returns an argument, or ``default`` where the schema lacks it or it is ``None``."""
        value = self.arguments.get(name)
        return default if value is None else value

    def tensors(self) -> list[Tensor]:
        """Returns all tensor arguments, in the schema's order, ``out=`` ones left away."""
        return tensors_in([value for name, value in self.arguments.items() if name != "out"])

    def value(self, tensor: Tensor) -> Value:
        """Returns what is known of a tensor argument."""
        return self._values[id(tensor)]

    def dims(self, tensor: Tensor) -> tuple[Space, ...]:
        """Returns the spaces of a tensor argument."""
        return self._values[id(tensor)].dims

    @property
    def out(self) -> Tensor:
        """The first tensor that the operator returned."""
        return self.outputs[0]

    def reads_across(self, spaces: Iterable[Space], note: str = "") -> None:
        """Says that the result mixes the units of these spaces."""
        for space in spaces:
            self.reads.append(space)
            mark(space, Reader(f"{self.operator}{note}", self.module))

    def pins(self, spaces: Iterable[Space], why: str) -> None:
        """Says that these spaces cannot be edited."""
        for space in spaces:
            pin(space, f"{self.operator} in {self.module or 'the model'}: {why}")

    def role(self, tensor: Tensor, dim: int, role: Role) -> None:
        """Says what a dimension of a tensor does, if that tensor comes from a parameter."""
        value = self.value(tensor)
        if value.parameter is not None:
            for source in value.parameter_dims[dim % len(value.parameter_dims)]:
                self._roles.setdefault((value.parameter, source), set()).add(role)
            return
        wanted = set(leaves(value.dims[dim]))
        for name in value.derived_from:
            for source, space in enumerate(self._parameters[name].dims):
                if wanted & set(leaves(space)):
                    self._roles.setdefault((name, source), set()).add(role)

    def contract(self, a: Tensor, a_dim: int, b: Tensor, b_dim: int) -> None:
        """Says that two dimensions are multiplied and summed away.

        New units vanish from the sum exactly when one side is a bare parameter, whose new slices can be zero.
        """
        space = self.dims(a)[a_dim]
        if a.shape[a_dim] != 1:
            unify(space, self.dims(b)[b_dim])
        if self.value(b).is_activation and not self.value(a).is_activation:
            a, a_dim, b, b_dim = b, b_dim, a, a_dim
        self.consume(b, b_dim, space)

    def consume(self, weight: Tensor, dim: int, space: Space) -> None:
        """Says that ``weight`` reads the units of ``space`` through its dimension ``dim``."""
        self.contractions.append(Contraction(weight, dim, space))
        if self.value(weight).parameter is not None:
            self.role(weight, dim, Role.CONSUME)
        elif self.value(weight).is_activation:
            self.reads_across([space], " of two activations")
        else:
            self.reads_across([space], " with a computed weight")

    def broadcast(self, tensors: Sequence[Tensor], out: Tensor) -> tuple[Space, ...]:
        """Unifies tensors dimension by dimension as broadcasting aligns them and returns the result's spaces."""
        result: list[Space | None] = [None] * out.dim()
        for tensor in tensors:
            shift = out.dim() - tensor.dim()
            for index, space in enumerate(self.dims(tensor)):
                if tensor.shape[index] == 1:
                    continue
                known = result[index + shift]
                if known is None:
                    result[index + shift] = space
                else:
                    unify(known, space)
        return tuple(space or fresh(out.shape[i], "size written by the operator") for i, space in enumerate(result))


def fresh(size: int, reason: str | None = None) -> Space:
    """Returns a new space; size 1 is never pinned because it says nothing."""
    return Space(1) if size == 1 else Space(size, reason)


def fresh_dims(tensor: Tensor, reason: str | None = None) -> tuple[Space, ...]:
    """Returns new spaces for every dimension of a tensor."""
    return tuple(fresh(int(size), reason) for size in tensor.shape)


def tensors_in(tree: Any) -> list[Tensor]:
    """Returns all tensors in nested containers, in order."""
    return [tree] if isinstance(tree, Tensor) else [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def bind(function: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Returns all arguments of an operator by the names of its schema, defaults filled in."""
    bound = {**_defaults(function), **kwargs}
    bound.update(zip(bound, args, strict=False))
    return bound


@cache  # as many as there are operators
def _defaults(function: torch._ops.OpOverload) -> dict[str, Any]:
    """Returns every argument of an operator, in order, with its default or ``None``."""
    return {a.name: a.default_value if a.has_default_value() else None for a in function._schema.arguments}


def view_of(value: Value, dims: Sequence[Space], sources: Sequence[frozenset[int]]) -> Value:
    """Returns the value of a view; ``sources`` gives the dimensions of ``value`` that each new dimension runs over."""
    if value.parameter is None:
        return replace(value, dims=tuple(dims))
    origin = tuple(frozenset().union(*(value.parameter_dims[i] for i in source)) for source in sources)
    return replace(value, dims=tuple(dims), parameter_dims=origin)
