"""Residual branches: modules whose output is added to what another path carries, asked of the tape."""

from __future__ import annotations

from neuroexapt.graph import ModelGraph, ModuleCall
from neuroexapt.surgery.places.sites import sites


class Sums:
    """The sums of two activations in a model's forward.

    Args:
        graph: The model; walked once.
    """

    def __init__(self, graph: ModelGraph) -> None:
        self._tape = graph.tape
        self._sites = sites(graph)
        self._numbers = {id(value): number for number, value in enumerate(graph.tape.values)}
        self._readers: dict[int, list[int]] = {}
        for at, operation in enumerate(graph.tape.operations):
            for number in operation.inputs:
                self._readers.setdefault(number, []).append(at)

    def takes(self, call: ModuleCall) -> bool:
        """Whether a module's output goes nowhere but into one sum with another activation of the same shape."""
        return self._other(call) is not None

    def branches(self) -> list[ModuleCall]:
        """Returns the last site of every residual branch, in the order in which they run.

        Both sides of the sum come from one activation; the branch is the side that is computed from the other, or by
        more operators.
        """
        found: dict[int, ModuleCall] = {}
        for call in self._sites:
            other = self._other(call)
            if other is not None:
                number = self._numbers[id(call.output)]
                before, before_other = self._ancestors(number), self._ancestors(other)
                shared = {n for n in before & before_other if n in self._tape.maker and self._is_activation(n)}
                if shared and len(before) > len(before_other):
                    found[number] = call  # the last module that returns this tensor
        return list(found.values())

    def _other(self, call: ModuleCall) -> int | None:
        """Number of the tensor that the output of a module is added to, if nothing else becomes of it."""
        number = self._numbers.get(id(call.output), -1)
        readers = self._readers.get(number, [])
        if len(readers) != 1:
            return None
        operation = self._tape.operations[readers[0]]
        if operation.name != "add" or len(operation.inputs) != 2:
            return None
        other = operation.inputs[operation.inputs[0] == number]
        sizes = tuple(space.size for space in self._tape.values[other].dims)
        return other if self._is_activation(other) and sizes == call.shape else None

    def _is_activation(self, number: int) -> bool:
        return self._tape.values[number].is_activation

    def _ancestors(self, number: int) -> set[int]:
        """Numbers of all tensors that a tensor was computed from, and its own."""
        seen, waiting = {number}, [number]
        while waiting:
            maker = self._tape.maker.get(waiting.pop())
            new = set(maker.inputs if maker else ()) - seen
            seen |= new
            waiting += new
        return seen
