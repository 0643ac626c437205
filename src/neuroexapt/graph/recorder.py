"""The dispatch mode that runs the rule of every operator while the user's ``forward`` runs.

Memory: one ``Value`` per tensor of one forward pass; the tensors kept alive (so that their ids stay unique) are fakes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from neuroexapt.graph.flops import operator_flops
from neuroexapt.graph.rules import RULES, VIEW_RULES, base_name, rule_name
from neuroexapt.graph.rules.stand_ins import DEVICE, run
from neuroexapt.graph.scalars import scalars
from neuroexapt.graph.space import Space, pin, unify
from neuroexapt.graph.tape import Operation, Tape
from neuroexapt.graph.values import Call, Contraction, NotUnderstood, Role, Value, bind, fresh_dims, tensors_in, view_of


@dataclass(frozen=True, slots=True)
class ModuleCall:
    """One execution of a module: its single tensor output, if it has one, and what made that."""

    path: str
    output: Value | None
    shape: tuple[int, ...]
    is_floating_point: bool
    producer: str  # operator that made the output, e.g. "aten.relu"
    inputs: tuple[tuple[int, ...], ...] = ()  # shapes of the tensors that it was given by position


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one operator made of the axes: compared with what it makes of them at other sizes.

    Attributes:
        operator: Its name.
        outputs: The spaces of each output tensor.
        start: For a slice the space of the indices before it, if there are any.
        scalars: The numbers that it computed with, by argument.
    """

    operator: str
    outputs: tuple[tuple[Space, ...], ...]
    start: Space | None
    scalars: Mapping[str, float]


class Recorder(TorchDispatchMode):
    """Follows index spaces and roles of parameters through one forward pass, and what it costs.

    Args:
        module_stack: Says which module runs now.
        parameters: What is known of every parameter and buffer.
        is_counted: Whether FLOPs, activation bytes and footprints are kept; a second pass is not asked for them.
    """

    def __init__(self, module_stack: Callable[[], str], parameters: dict[str, Value], is_counted: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._is_counted = is_counted
        self.parameters = parameters
        self.roles: dict[tuple[str, int], set[Role]] = {}
        self.unknown: dict[str, str] = {}  # operator -> reason
        self.flops: dict[str, int] = {}  # module path -> FLOPs of the operators that it called itself
        self.reached: set[str] = set()  # parameters and buffers that some operator read
        self.activation_bytes = 0
        self.footprints: list[Footprint] = []
        self.tape = Tape()
        self._module = module_stack
        self._values: dict[int, Value] = {}
        self._producers: dict[int, str] = {}
        self._alive: list[Tensor] = []

    def introduce(self, tensor: Tensor, value: Value) -> None:
        """Tells the recorder what a tensor is before it is used."""
        self._values[id(tensor)] = value
        self._alive.append(tensor)
        self.tape.introduce(tensor, value)

    def value(self, tensor: Tensor) -> Value:
        """Returns what is known of a tensor; one that came from nowhere is pinned."""
        if id(tensor) not in self._values:
            reason = "a tensor that is neither parameter, buffer nor input"
            self.introduce(tensor, Value(fresh_dims(tensor, reason)))
        return self._values[id(tensor)]

    def known_dims(self, tensor: Tensor) -> tuple[Space, ...] | None:
        """Returns the spaces of a tensor that the trace has seen."""
        value = self._values.get(id(tensor))
        return value.dims if value is not None and len(value.dims) == tensor.dim() else None

    def producer(self, tensor: Tensor) -> str:
        """Returns the operator that made a tensor, or ``""``."""
        return self._producers.get(id(tensor), "")

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operator on fakes, then its rule."""
        kwargs = kwargs or {}
        if func is DEVICE:
            return run(func, args, kwargs)
        arguments = self._before(func, args)
        result = run(func, args, kwargs)
        outputs = tensors_in(result)
        if isinstance(func, torch._ops.OpOverload) and (outputs or func._schema.is_mutable):
            if self._is_counted:
                self._count(func, args, kwargs, result, outputs)
            self._follow(func, bind(func, arguments, kwargs), outputs)
        return result

    def _before(self, func: Any, args: Sequence[Any]) -> Sequence[Any]:
        """A view in place (``transpose_``) has changed its tensor when the rule sees it: this keeps the old shape."""
        if torch.Tag.inplace_view not in getattr(func, "tags", ()):
            return args
        before = args[0].detach()
        self._values[id(before)] = self.value(args[0])
        self._alive.append(before)
        self.tape.alias(before, args[0])
        return [before, *args[1:]]

    def _count(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any, outputs: list[Tensor]
    ) -> None:
        flops, module = operator_flops(func, args, kwargs, result), self._module()
        if flops is not None:
            self.flops[module] = self.flops.get(module, 0) + flops
        if not any(r.alias_info is not None for r in func._schema.returns):
            self.activation_bytes += sum(o.numel() * o.element_size() for o in outputs)

    def _follow(self, func: torch._ops.OpOverload, arguments: dict[str, Any], outputs: list[Tensor]) -> None:
        operator = operator_name(func)
        operands = tensors_in(list(arguments.values()))
        for tensor in operands:
            name_read = self.value(tensor).parameter
            if name_read is not None:
                self.reached.add(name_read)
        call = Call(operator, self._module(), arguments, outputs, self._values, self.roles, self.parameters)
        try:
            name = rule_name(func)
            values = self._apply_rule(name, call, operands)
            _check_sizes(outputs, values)
            if name in RULES:
                self._tie_written(outputs, values)
        except NotUnderstood as error:
            values = self._pin_all(call, operands, str(error))
        except MemoryError:
            raise
        except Exception as error:  # a rule that stumbles over a rare form must not stop the user: it fails closed
            values = self._pin_all(call, operands, f"its rule failed with {type(error).__name__}: {error}")
        references, taken = self.tape.refer(arguments)
        contractions = tuple(Contraction(self.tape.number(c.operand), c.dim, c.space) for c in call.contractions)
        for output, value in zip(outputs, values, strict=True):
            self.introduce(output, value)
            self._producers[id(output)] = operator
        numbers = tuple(self.tape.number(output) for output in outputs)
        reads = tuple(call.reads)
        self.tape.append(Operation(operator, call.module, references, taken, numbers, reads, contractions))
        if self._is_counted:
            dims = tuple(value.dims for value in values)
            self.footprints.append(Footprint(operator, dims, call.start, scalars(func, arguments)))

    def _tie_written(self, outputs: list[Tensor], values: list[Value]) -> None:
        """What is written into a tensor has its axes, and those of all tensors that it is a view of."""
        for output, value in zip(outputs, values, strict=True):
            known = self._values.get(id(output))
            if known is not None and [space.size for space in known.dims] == list(output.shape):
                for old, new in zip(known.dims, value.dims, strict=True):
                    unify(old, new)

    def _apply_rule(self, name: str, call: Call, operands: list[Tensor]) -> list[Value]:
        if name in VIEW_RULES:
            maps = VIEW_RULES[name](call)
            base = self.value(operands[0])
            return [view_of(base, m.dims, m.sources) for m in (maps if isinstance(maps, list) else [maps])]
        if name not in RULES:
            raise NotUnderstood("no rule for this operator")
        dims = RULES[name](call)
        derived = self._derived_from(operands)
        per_output = list(dims) if _is_list_of_dims(dims) else [dims]
        values = [Value(tuple(cast(Sequence[Space], d)), derived_from=derived) for d in per_output]
        for extra in call.outputs[len(values) :]:
            values.append(Value(fresh_dims(extra, f"a further output of {call.operator}"), derived_from=derived))
        return values

    def _derived_from(self, operands: list[Tensor]) -> frozenset[str]:
        sources = [self.value(t).derived_from for t in operands]
        return frozenset().union(*sources) if sources and all(sources) else frozenset()

    def _pin_all(self, call: Call, operands: list[Tensor], why: str) -> list[Value]:
        reason = f"{call.operator} in {call.module or 'the model'}: {why}"
        self.unknown.setdefault(call.operator, why)
        for tensor in operands:
            for space in self.value(tensor).dims:
                pin(space, reason)
        derived = self._derived_from(operands)
        return [Value(fresh_dims(o, reason), derived_from=derived) for o in call.outputs]


def operator_name(func: torch._ops.OpOverload) -> str:
    """Returns ``namespace.operator``, in-place variants under their operator's name."""
    return f"{func.namespace}.{base_name(func._schema.name.split('::')[1])}"


def _check_sizes(outputs: Sequence[Tensor], values: Sequence[Value]) -> None:
    if len(outputs) != len(values):
        raise NotUnderstood(f"its rule gives {len(values)} outputs for {len(outputs)}")
    for output, value in zip(outputs, values, strict=True):
        sizes = [space.size for space in value.dims]
        if sizes != list(output.shape):
            raise NotUnderstood(f"its rule gives sizes {sizes} for {list(output.shape)}")


def _is_list_of_dims(dims: Any) -> bool:
    return isinstance(dims, list) and len(dims) > 0 and not isinstance(dims[0], Space)
