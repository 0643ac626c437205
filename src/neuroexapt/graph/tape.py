"""The tape: every operator of one forward pass with the tensors that it took and made, by number.

Questions that are asked later, about one axis at a time (what makes this tensor vanish, what becomes of it when units
are copied), walk the tape instead of running the model again. Memory: one record per operator and one ``Value`` per
tensor; no tensor is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from neuroexapt.graph.space import Space
from neuroexapt.graph.values import Contraction, Value


@dataclass(frozen=True, slots=True)
class Ref:
    """A tensor among the arguments of an operation."""

    number: int


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of an operator.

    Attributes:
        operator: Its name, for example ``aten.mm``.
        module: Path of the module that called it, ``""`` for the model itself.
        arguments: By the names of its schema, every tensor replaced by a ``Ref``.
        inputs: Numbers of all tensors that it took, in the schema's order, ``out=`` ones left away.
        outputs: Numbers of the tensors that it returned.
        reads: Spaces whose units it mixes.
        contractions: Dimensions of its operands that it sums over against another operand.
    """

    operator: str
    module: str
    arguments: Mapping[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    reads: tuple[Space, ...]
    contractions: tuple[Contraction[int], ...]

    @property
    def name(self) -> str:
        """The operator without its namespace."""
        return self.operator.partition(".")[2]

    def number(self, name: str) -> int | None:
        """Number of the tensor that was given as the argument ``name``, or ``None``."""
        value = self.arguments.get(name)
        return value.number if isinstance(value, Ref) else None

    def __str__(self) -> str:
        return f"{self.operator} in {self.module or 'the model'}"


@dataclass
class Tape:
    """All operations of a forward pass, in order.

    Attributes:
        operations: In the order of execution.
        values: What is known of each tensor, by its number.
        maker: The operation that made a tensor, by the tensor's number; parameters and inputs have none.
    """

    operations: list[Operation] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    maker: dict[int, Operation] = field(default_factory=dict)
    _numbers: dict[int, int] = field(default_factory=dict)  # id of a live tensor -> number of its newest content

    def introduce(self, tensor: Tensor, value: Value) -> int:
        """Gives a tensor, or its new content after an in-place write, a number."""
        self.values.append(value)
        self._numbers[id(tensor)] = len(self.values) - 1
        return len(self.values) - 1

    def alias(self, tensor: Tensor, original: Tensor) -> None:
        """Says that a tensor has the content of another one."""
        self._numbers[id(tensor)] = self._numbers[id(original)]

    def refer(self, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Returns the arguments with every tensor replaced by a reference, and the numbers of the tensors taken."""
        found: list[int] = []
        referred = {name: self._referred(value, found if name != "out" else []) for name, value in arguments.items()}
        return referred, tuple(found)

    def _referred(self, value: Any, found: list[int]) -> Any:
        if isinstance(value, Tensor):
            found.append(self._numbers[id(value)])
            return Ref(found[-1])
        if isinstance(value, (list, tuple)):
            return [self._referred(item, found) for item in value]
        return value

    def number(self, tensor: Tensor) -> int:
        """Returns the number of a tensor's content now."""
        return self._numbers[id(tensor)]

    def append(self, operation: Operation) -> None:
        """Adds an operation whose outputs have been introduced."""
        self.operations.append(operation)
        for number in operation.outputs:
            self.maker[number] = operation

    def close(self) -> None:
        """Forgets the tensors' ids, which mean nothing after the forward."""
        self._numbers.clear()

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)
