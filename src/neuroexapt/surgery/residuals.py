"""Residual branches: modules whose output is added to what another path carries, asked of the tape."""

from __future__ import annotations

from neuroexapt.graph import ModelGraph, ModuleCall
from neuroexapt.surgery.sites import sites


def is_added(graph: ModelGraph, call: ModuleCall) -> bool:
    """Whether a module's output goes nowhere but into one sum with another activation of the same shape."""
    return _other_operand(graph, call) is not None


def ends_of_branches(graph: ModelGraph) -> list[ModuleCall]:
    """Returns the last site of every residual branch, in the order in which they run.

    Of the two sides of a sum the branch is the one that was computed from the other, or by more operators.
    """
    found: dict[int, ModuleCall] = {}
    for call in sites(graph):
        other = _other_operand(graph, call)
        if other is not None:
            number = _number(graph, call)
            before, before_other = _ancestors(graph, number), _ancestors(graph, other)
            if other in before or len(before) > len(before_other):
                found[number] = call  # the last module that returns this tensor
    return list(found.values())


def _other_operand(graph: ModelGraph, call: ModuleCall) -> int | None:
    """Number of the tensor that the output of a module is added to, if nothing else becomes of it."""
    number = _number(graph, call)
    readers = [operation for operation in graph.tape if number in operation.inputs]
    if len(readers) != 1 or readers[0].name != "add" or len(readers[0].inputs) != 2:
        return None
    first, second = readers[0].inputs
    other = second if first == number else first
    value = graph.tape.values[other]
    sizes = tuple(space.size for space in value.dims)
    return other if value.is_activation and sizes == call.shape and other != number else None


def _number(graph: ModelGraph, call: ModuleCall) -> int:
    return next((i for i, value in enumerate(graph.tape.values) if value is call.output), -1)


def _ancestors(graph: ModelGraph, number: int) -> set[int]:
    """Numbers of all tensors that a tensor was computed from, and its own."""
    seen, waiting = {number}, [number]
    while waiting:
        maker = graph.tape.maker.get(waiting.pop())
        new = set(maker.inputs if maker else ()) - seen
        seen |= new
        waiting += new
    return seen
