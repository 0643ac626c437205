"""Running the user's ``forward`` with other sizes, on fake tensors, before anything is changed.

The algebra knows which indices belong together; only the code itself knows which sizes it has written down. A resize
is possible when the fake forward goes through with the new sizes, every operator makes of the axes what it made of them
in the trace, and the outputs have their old shapes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from neuroexapt.graph.fakes import ExampleInputs, fake_forward
from neuroexapt.graph.recorder import Footprint, ModuleCall, operator_name
from neuroexapt.graph.resize import AttributeEdit, new_attributes, new_shapes, resized
from neuroexapt.graph.rules.stand_ins import run
from neuroexapt.graph.space import Space, resolve
from neuroexapt.graph.values import Value, bind

Shapes = list[tuple[int, ...]]
_UNSTEADY = "aten.detach"  # fake tensors call it themselves whenever their cache misses; it changes no axis


def output_shapes(outputs: object) -> Shapes:
    """Returns the shapes of all tensors in a model's output."""
    return [tuple(leaf.shape) for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


@contextlib.contextmanager
def attributes_set(model: nn.Module, edits: Sequence[AttributeEdit]) -> Iterator[None]:
    """Sets module attributes and puts the old values back."""
    before = [(model.get_submodule(e.module), e.name) for e in edits]
    saved = [(module, name, getattr(module, name)) for module, name in before]
    try:
        for edit, (module, name) in zip(edits, before, strict=True):
            setattr(module, name, edit.value)
        yield
    finally:
        for module, name, value in saved:
            setattr(module, name, value)


class _DifferentError(Exception):
    """Ends a rehearsal at the first operator that does something else."""


class _Comparison(TorchDispatchMode):
    """Compares what every operator does at new sizes with what the trace says that it should do.

    Shapes alone would not show a literal slice ``x[:, 2:9]`` behind a grown segment, nor a ``view(n, 2, -1)`` of a
    grown factor: they go through and mean something else.
    """

    def __init__(self, footprints: Sequence[Footprint], sizes: Mapping[Space, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._expected = iter([f for f in footprints if f.operator != _UNSTEADY])
        self._sizes = sizes

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = run(func, args, kwargs or {})
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if outputs and isinstance(func, torch._ops.OpOverload):
            self._compare(func, bind(func, args, kwargs or {}), outputs)
        return result

    def _compare(self, func: torch._ops.OpOverload, arguments: dict[str, Any], outputs: list[Tensor]) -> None:
        operator = operator_name(func)
        if operator == _UNSTEADY:
            return
        expected = next(self._expected, None)
        if expected is None or expected.operator != operator or len(expected.outputs) != len(outputs):
            raise _DifferentError(f"the forward takes another path at another size, from {operator} on")
        for spaces, output in zip(expected.outputs, outputs, strict=True):
            for dim, space in enumerate(spaces):
                wanted = resized(space, self._sizes)
                if resolve(space).pin_reason is None and output.shape[dim] != wanted:
                    raise _DifferentError(
                        f"{operator} gives {output.shape[dim]} indices where {wanted} belong: a size in the code"
                    )
        if expected.start is not None:
            wanted, size = resized(expected.start, self._sizes), arguments["self"].shape[arguments["dim"]]
            if arguments["start"] % size != wanted:
                raise _DifferentError(
                    f"{operator} starts at {arguments['start']} where {wanted} belongs: an offset in the code"
                )


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Everything that is needed to run a traced model at other sizes.

    Attributes:
        model: The model; it is only run on fakes.
        inputs: The example inputs.
        parameters: Index spaces of its parameters and buffers.
        calls: Executions of modules in the trace.
        footprints: What each operator made of the axes in the trace.
        output_shapes: Of the trace; they must not change.
    """

    model: nn.Module
    inputs: ExampleInputs
    parameters: dict[str, Value]
    calls: tuple[ModuleCall, ...]
    footprints: Sequence[Footprint]
    output_shapes: Shapes

    def at(self, sizes: Mapping[Space, int]) -> str:
        """Returns why the model does not run, or does something else, with these leaf sizes, or ``""``."""
        shapes = new_shapes(self.parameters, sizes)
        edits = new_attributes(self.model, self.parameters, self.calls, sizes)
        comparison = _Comparison(self.footprints, sizes)
        # Whatever the user's code raises on a size that it did not expect is the answer that is asked for here.
        try:
            with (
                attributes_set(self.model, edits),
                fake_forward(self.model, self.inputs, training=False, shapes=shapes) as (_, fake_inputs),
                comparison,
            ):
                found = output_shapes(fake_inputs.call(self.model))
        except MemoryError:
            raise
        except _DifferentError as error:
            return str(error)
        except Exception as error:  # the user's code on a size that it did not expect: its error is the answer
            return f"the forward fails at another size: {type(error).__name__}: {_first_line(error)}"
        if found != self.output_shapes:
            return f"the output would change its shape from {self.output_shapes} to {found}"
        return ""


def unresizable(leaves: Sequence[Space], trial: Callable[[Mapping[Space, int]], str]) -> dict[Space, str]:
    """Finds the leaves that cannot be resized, by halving: two fake runs when all can.

    Every leaf grows by another odd prime, in two different assignments, so that sizes that the code ties (equal, a
    multiple, a sum) do not hide each other by growing alike.
    """
    primes = _odd_primes(len(leaves))
    found: dict[Space, str] = {}
    for order in (primes, primes[::-1]):
        sizes = {leaf: leaf.size + prime for leaf, prime in zip(leaves, order, strict=True)}
        found |= _search([leaf for leaf in leaves if leaf not in found], sizes, trial)
    return found


def _odd_primes(count: int) -> list[int]:
    primes: list[int] = []
    candidate = 3
    while len(primes) < count:
        if all(candidate % prime for prime in primes if prime * prime <= candidate):
            primes.append(candidate)
        candidate += 2
    return primes


def _search(
    leaves: list[Space], sizes: dict[Space, int], trial: Callable[[Mapping[Space, int]], str]
) -> dict[Space, str]:
    if not leaves:
        return {}
    why = trial({leaf: sizes[leaf] for leaf in leaves})
    if not why:
        return {}
    if len(leaves) == 1:
        return {leaves[0]: why}
    middle = len(leaves) // 2
    return {**_search(leaves[:middle], sizes, trial), **_search(leaves[middle:], sizes, trial)}


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else "no message"
