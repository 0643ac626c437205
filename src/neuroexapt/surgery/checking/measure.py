"""What flows through a model on calibration data: activations at modules, gradients there and at parameters.

Measured in eval mode on copies of the buffers; parameters' ``.grad``, attributes, training flags and global generators
are as before. Memory: at most ``MAX_ACTIVATION_BYTES`` for each tensor that is kept, by keeping its first samples only;
while it runs, what one forward takes, and a copy of the outputs that are watched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph, undisturbed

MAX_ACTIVATION_BYTES = 32 << 20


@dataclass(eq=False)
class Measured:
    """What was seen; all tensors are detached.

    Attributes:
        inputs: First positional argument of a module at its last call, by path; its first samples.
        outputs: What it returned; the same samples.
        output_gradients: Gradient of the objective with respect to that; the same samples.
        gradients: Gradient of the objective with respect to parameters, by name.
    """

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    output_gradients: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)


def measure(
    graph: ModelGraph, paths: Sequence[str], *, gradients: bool = False, model: nn.Module | None = None
) -> Measured:
    """Runs the model once on its calibration data (``graph.objective``, or else the example inputs).

    Args:
        graph: The model.
        paths: Modules whose inputs and outputs are kept.
        gradients: Whether the objective is also differentiated.
        model: Run instead of the graph's: an edited copy of it.

    Raises:
        SurgeryError: Gradients are wanted and there is no objective.
    """
    if gradients and graph.objective is None:
        raise SurgeryError(
            "gradients: found no objective, needed a function that returns the model's mean loss on calibration data. "
            "Give one: Surgeon(..., objective=lambda model: loss(model(x), y))."
        )
    seen, model = Measured(), model or graph.model
    with (
        undisturbed(model, training=False),
        torch.set_grad_enabled(gradients),
        _watching(model, paths, seen),
    ):
        if graph.objective is None:
            graph.inputs.call(model)
        else:
            loss = graph.objective(model)
            if gradients:
                _differentiate(loss, model, seen)
    for kept in (seen.outputs, seen.output_gradients):
        for path, tensor in kept.items():
            kept[path] = _bounded(tensor)
    return seen


def _differentiate(loss: Tensor, model: nn.Module, seen: Measured) -> None:
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    watched = {path: output for path, output in seen.outputs.items() if output.requires_grad}
    wanted = [*named.values(), *watched.values()]
    if not wanted or not loss.requires_grad:
        raise SurgeryError(
            "gradients: the objective's loss depends on no parameter that requires one. Unfreeze some, and return the "
            "loss with its graph."
        )
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    for name, gradient in zip(named, found, strict=False):
        seen.gradients[name] = torch.zeros_like(named[name]) if gradient is None else gradient
    for path, gradient in zip(watched, found[len(named) :], strict=True):
        seen.output_gradients[path] = torch.zeros_like(watched[path]) if gradient is None else gradient


@contextlib.contextmanager
def _watching(model: nn.Module, paths: Sequence[str], seen: Measured) -> Iterator[None]:
    """Keeps what the modules get and give, through hooks that are removed on exit."""

    def keep(path: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if args and isinstance(args[0], Tensor):
                seen.inputs[path] = _bounded(args[0])  # a copy: a later operator may write into it
            if not isinstance(output, Tensor):
                return None
            seen.outputs[path] = output
            return output.clone()  # for the same reason

        return hook

    handles = [model.get_submodule(path).register_forward_hook(keep(path), prepend=True) for path in paths]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _bounded(tensor: Tensor) -> Tensor:
    """Returns the first samples, in a storage of their own."""
    per_sample = max(tensor[:1].numel() * tensor.element_size(), 1)
    return tensor.detach()[: max(1, MAX_ACTIVATION_BYTES // per_sample)].clone()
