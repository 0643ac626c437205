"""``trace``: one run of the user's own ``forward`` on fake tensors, in eval and in train mode, merged.

Not fx, export or autograd nodes: those lose the module hierarchy, the Python integers or a third of the models. Both
runs share the spaces of the parameters, so whatever either of them ties is tied. Parameters that neither run reaches
are pinned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from neuroexapt.errors import TraceError
from neuroexapt.graph.cost import Cost
from neuroexapt.graph.equations import Equation
from neuroexapt.graph.fakes import ExampleInputs, fake_forward, forward_error, named_tensors
from neuroexapt.graph.following import integers_followed
from neuroexapt.graph.isolation import collector_paused
from neuroexapt.graph.model_graph import ModelGraph
from neuroexapt.graph.recorder import ModuleCall, Recorder
from neuroexapt.graph.rehearsal import Rehearsal, Shapes, output_shapes
from neuroexapt.graph.space import pin
from neuroexapt.graph.values import Role, Value, fresh_dims
from neuroexapt.graph.wrappers import constrained, unwrapped


@dataclass
class _Run:
    """What one forward pass told us."""

    recorder: Recorder
    calls: list[ModuleCall] = field(default_factory=list)
    shapes: Shapes = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)  # numbers on the tape
    equations: list[Equation] = field(default_factory=list)


class _ModuleStack:
    """Knows which module runs now, through global forward hooks that are removed on exit."""

    def __init__(self, model: nn.Module) -> None:
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._stack: list[str] = []
        self.run: _Run | None = None

    def current(self) -> str:
        return self._stack[-1] if self._stack else ""

    @contextlib.contextmanager
    def watching(self, run: _Run) -> Iterator[None]:
        self.run = run
        before = register_module_forward_pre_hook(self._enter)
        after = register_module_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        if id(module) in self._paths:
            self._stack.append(self._paths[id(module)])

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if id(module) not in self._paths or self.run is None:
            return
        path = self._stack.pop()
        recorder = self.run.recorder
        if not isinstance(output, Tensor):
            self.run.calls.append(ModuleCall(path, None, (), False, ""))
            return
        with torch._C.DisableTorchFunction():  # our own look at the shape is no size in the user's code
            call = ModuleCall(
                path,
                recorder.value(output),
                tuple(output.shape),
                output.is_floating_point(),
                recorder.producer(output),
                tuple(tuple(leaf.shape) for leaf in tree_leaves(args) if isinstance(leaf, Tensor)),
            )
        self.run.calls.append(call)


@collector_paused()
def trace(model: nn.Module, example_inputs: Any, objective: Callable[[nn.Module], Tensor] | None = None) -> ModelGraph:
    """Reads what a model is, without changing it and without allocating anything of its size.

    Args:
        model: Any module; one under ``torch.compile`` is traced as it is written.
        example_inputs: A tensor, a tuple of positional or a dictionary of keyword arguments for ``forward``.
        objective: Mean loss of a model on calibration data; not run here, kept for those who measure.

    Returns:
        The model's axes, channel groups and cost.

    Raises:
        TraceError: The model's ``forward`` failed on fake tensors in eval mode; the message shows its error. Or a lazy
            module has no parameters yet.
        InputError: The model is wrapped (DDP), sharded, scripted or quantized; the message says what to give instead.
    """
    model, inputs = unwrapped(model), ExampleInputs.of(example_inputs)
    _refuse_lazy(model)
    parameters = {
        name: Value(
            fresh_dims(tensor),
            parameter=name,
            parameter_dims=tuple(frozenset({i}) for i in range(tensor.dim())),
            derived_from=frozenset({name}),
            is_buffer=not isinstance(tensor, nn.Parameter),
        )
        for name, tensor in named_tensors(model).items()
    }
    notes: list[str] = []
    evaluation = _followed_run(model, inputs, parameters)
    runs = [evaluation]
    # A forward that only works in eval mode (batch norm on one sample, data-dependent masking) is the user's choice.
    try:
        runs.append(_run(model, inputs, parameters, training=True))
    except TraceError as error:
        notes.append(f"not traced in train mode: {error}")
    _pin_unreached(parameters, runs)
    _pin_integers(model, parameters)
    for name, reason in constrained(model):
        for space in parameters[name].dims if name in parameters else ():
            pin(space, reason)
    return ModelGraph(
        rehearsal=Rehearsal(
            model, inputs, parameters, tuple(evaluation.calls), evaluation.recorder.footprints, evaluation.shapes
        ),
        equations=evaluation.equations,
        roles=_merge_roles(runs),
        cost=_cost(model, inputs, evaluation.recorder),
        tape=evaluation.recorder.tape,
        outputs=tuple(evaluation.outputs),
        unknown_operators={k: v for run in runs for k, v in run.recorder.unknown.items()},
        notes=tuple(notes),
        objective=objective,
    )


def _refuse_lazy(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise TraceError(f"{name}: has no shape yet. Run one forward, which gives lazy modules their parameters.")


def _followed_run(model: nn.Module, inputs: ExampleInputs, parameters: dict[str, Value]) -> _Run:
    """Runs the forward in eval mode and follows its integers, unless the user's code does not bear that."""
    try:
        return _run(model, inputs, parameters, training=False, follow=True)
    except TraceError:
        return _run(model, inputs, parameters, training=False)


def _run(
    model: nn.Module, inputs: ExampleInputs, parameters: dict[str, Value], training: bool, follow: bool = False
) -> _Run:
    stack = _ModuleStack(model)
    run = _Run(Recorder(stack.current, parameters, is_counted=not training))
    with fake_forward(model, inputs, training) as (fakes, fake_inputs):
        for name, fake in fakes.items():
            run.recorder.introduce(fake, parameters[name])
        for tensor in tree_leaves((fake_inputs.args, fake_inputs.kwargs)):
            if isinstance(tensor, Tensor):
                run.recorder.introduce(tensor, Value(fresh_dims(tensor, "an axis of the model's input")))
        try:
            following = integers_followed(model, run.recorder, run.equations) if follow else contextlib.nullcontext()
            with stack.watching(run), run.recorder, following:
                outputs = fake_inputs.call(model)
        except Exception as error:  # the edge to the user's code: its own error is the message
            raise forward_error(model, error) from error
    run.shapes = output_shapes(outputs)
    for tensor in tree_leaves(outputs):
        if isinstance(tensor, Tensor):
            for space in run.recorder.value(tensor).dims:
                pin(space, "an axis of the model's output")
            run.outputs.append(run.recorder.tape.number(tensor))
    run.recorder.tape.close()
    return run


def _pin_unreached(parameters: dict[str, Value], runs: list[_Run]) -> None:
    reached = set().union(*(run.recorder.reached for run in runs))
    for name, value in parameters.items():
        if name not in reached:
            for space in value.dims:
                pin(space, f"{name} is not reached by the forward on these inputs")


def _pin_integers(model: nn.Module, parameters: dict[str, Value]) -> None:
    """Integers in a buffer count or point at something; there is no way to make more of them."""
    for name, tensor in named_tensors(model).items():
        if not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool):
            reason = f"{name} holds integers, which count or point at something"
            if isinstance(tensor, nn.Parameter):
                reason = f"{name} holds packed integers ({tensor.dtype}); edit the model before it is quantized"
            for space in parameters[name].dims:
                pin(space, reason)


def _merge_roles(runs: list[_Run]) -> dict[tuple[str, int], set[Role]]:
    roles: dict[tuple[str, int], set[Role]] = {}
    for run in runs:
        for key, found in run.recorder.roles.items():
            roles.setdefault(key, set()).update(found)
    return roles


def _cost(model: nn.Module, inputs: ExampleInputs, recorder: Recorder) -> Cost:
    first = next((t for t in tree_leaves((inputs.args, inputs.kwargs)) if isinstance(t, torch.Tensor)), None)
    return Cost(
        num_parameters=sum(p.numel() for p in model.parameters()),
        flops=sum(recorder.flops.values()),
        activation_bytes=recorder.activation_bytes,
        batch_size=int(first.shape[0]) if first is not None and first.dim() else 1,
        flops_by_module=dict(recorder.flops),
    )
