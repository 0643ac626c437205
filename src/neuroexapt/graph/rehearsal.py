"""Running the user's ``forward`` with other sizes, on fake tensors, before anything is changed.

The algebra knows which indices belong together; only the code itself knows which sizes it has written down. A resize
is possible when the fake forward goes through with the new sizes, every operator makes of the axes what it made of them
in the trace, and the outputs have their old shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from neuroexapt.graph.attributes import AttributeEdit, attributes_set
from neuroexapt.graph.expressions import Attribute
from neuroexapt.graph.fakes import ExampleInputs, fake_forward
from neuroexapt.graph.recorder import Footprint, ModuleCall, operator_name
from neuroexapt.graph.resize import attribute_edits, new_shapes
from neuroexapt.graph.rules.stand_ins import DEVICE, run
from neuroexapt.graph.scalars import ScaleChange, scalars, scale_ratio
from neuroexapt.graph.sizes import resized
from neuroexapt.graph.space import Space, resolve
from neuroexapt.graph.values import Value, bind, tensors_in

Shapes = list[tuple[int, ...]]
_UNSTEADY = "aten.detach"  # fake tensors call it themselves whenever their cache misses; it changes no axis


def output_shapes(outputs: object) -> Shapes:
    """Returns the shapes of all tensors in a model's output."""
    return [tuple(tensor.shape) for tensor in tensors_in(outputs)]


class _DifferentError(Exception):
    """Ends a rehearsal at the first operator that does something else."""


class _Comparison(TorchDispatchMode):
    """Compares what every operator does at new sizes with what the trace says that it should do.

    Shapes alone would not show a literal slice ``x[:, 2:9]`` behind a grown segment, nor a ``view(n, 2, -1)`` of a
    grown factor: they go through and mean something else.
    """

    def __init__(self, footprints: Sequence[Footprint], sizes: Mapping[Space, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._expected = iter([(i, f) for i, f in enumerate(footprints) if f.operator != _UNSTEADY])
        self._sizes = sizes
        self.scales: list[ScaleChange] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = run(func, args, kwargs or {})
        if func is DEVICE:
            return result
        outputs = tensors_in(result)
        if isinstance(func, torch._ops.OpOverload) and (outputs or func._schema.is_mutable):
            self._compare(func, bind(func, args, kwargs or {}), outputs)
        return result

    def _compare(self, func: torch._ops.OpOverload, arguments: dict[str, Any], outputs: list[Tensor]) -> None:
        operator = operator_name(func)
        if operator == _UNSTEADY:
            return
        index, expected = next(self._expected, (-1, None))
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
        ratio = scale_ratio(operator, expected.scalars, scalars(func, arguments))
        if ratio is None:
            raise _DifferentError(f"{operator} computes with a number that depends on the size")
        if ratio != 1.0:
            self.scales.append(ScaleChange(index, ratio))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rehearsal showed: the attributes that it set, why the model differs, and the numbers that changed."""

    attributes: tuple[AttributeEdit, ...]
    refusal: str
    scales: tuple[ScaleChange, ...]


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

    def at(self, sizes: Mapping[Space, int], attributes: Mapping[Attribute, int]) -> Outcome:
        """Runs the model with these leaf sizes, and these attributes, on fakes."""
        shapes = new_shapes(self.parameters, sizes)
        edits = attribute_edits(self.model, self.parameters, self.calls, sizes, attributes)
        comparison = _Comparison(self.footprints, sizes)

        def refused(why: str) -> Outcome:
            return Outcome(edits, why, ())

        # Whatever the user's code raises on a size that it did not expect is the answer that is asked for here.
        try:
            with (
                fake_forward(self.model, self.inputs, training=False, shapes=shapes) as (_, fake_inputs),
                attributes_set(self.model, edits),
                comparison,
            ):
                found = output_shapes(fake_inputs.call(self.model))
        except MemoryError:
            raise
        except _DifferentError as error:
            return refused(str(error))
        except Exception as error:  # the user's code on a size that it did not expect: its error is the answer
            return refused(f"the forward fails at another size: {type(error).__name__}: {_first_line(error)}")
        if found != self.output_shapes:
            return refused(f"the output would change its shape from {self.output_shapes} to {found}")
        return Outcome(edits, "", tuple(comparison.scales))


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else "no message"
