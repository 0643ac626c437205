"""What a model computes and what it consists of, looked at without the library's help.

Own code on purpose: whether an edit kept its promises is judged by none of the code that made it.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_RANDOM_LAYERS = ("drop", "stochastic")  # parts of the class names of layers that draw random masks


def call(model: nn.Module, inputs: Any) -> Any:
    """Runs the model on a tuple of positional or a dictionary of keyword arguments."""
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def float_outputs(result: Any) -> list[Tensor]:
    """Returns all floating-point tensors in a model's output."""
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def outputs(model: nn.Module, inputs: Any, training: bool, seed: int = 0) -> list[Tensor]:
    """Runs the model in one mode with random layers off; its buffers and flags are put back."""
    seed_everything(seed)
    with buffers_kept(model), mode(model, training), torch.no_grad():
        return [tensor.clone() for tensor in float_outputs(call(model, inputs))]


def both_modes(model: nn.Module, inputs: Any) -> dict[str, list[Tensor]]:
    """Returns the outputs in eval mode, and in train mode if the model runs there and is not random."""
    found = {"eval": outputs(model, inputs, training=False)}
    try:
        first, second = (outputs(model, inputs, training=True, seed=seed) for seed in range(2))
    except (RuntimeError, ValueError):  # a forward that does not run in train mode on these inputs
        return found
    if relative_change(first, second) == 0.0:
        found["train"] = first
    return found


def seed_everything(seed: int) -> None:
    """Seeds the global generators of torch, Python and NumPy."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


@contextlib.contextmanager
def mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Sets train or eval mode, with random layers in eval mode always."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    for module in model.modules():
        if any(part in type(module).__name__.lower() for part in _RANDOM_LAYERS):
            module.training = False
    try:
        yield
    finally:
        for module, was_training in before:
            module.training = was_training


@contextlib.contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Puts all buffers back, as the same tensors with the same values."""
    saved = [(m, k, b, b.clone()) for m in model.modules() for k, b in m._buffers.items() if b is not None]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, values in saved:
                module._buffers[name] = buffer
                buffer.copy_(values)


def relative_change(before: list[Tensor], after: list[Tensor]) -> float:
    """Largest change of any element over the largest element of the same output, the largest over all outputs."""
    if [tensor.shape for tensor in before] != [tensor.shape for tensor in after]:
        return float("inf")
    worst = 0.0
    for old, new in zip(before, after, strict=True):
        if torch.equal(old, new) or old.numel() == 0:
            continue
        change = ((new.double() - old.double()).abs().max() / old.double().abs().max().clamp_min(1e-12)).item()
        worst = max(worst, change) if change == change else float("inf")
    return worst


def to_double(inputs: Any) -> Any:
    """Returns the inputs with all floating-point tensors in float64."""
    return tree_map(lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, inputs)


class SinglePrecision(TorchDispatchMode):
    """Notes whether anything inside is computed in float32: a float64 model that does so cannot be exact to 1e-9."""

    seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operator and looks at its results."""
        result = func(*args, **(kwargs or {}))
        self.seen |= any(t.dtype == torch.float32 and t.numel() > 1 for t in float_outputs(result))
        return result


def fingerprint(model: nn.Module, optimizer: Optimizer | None = None) -> dict[str, Any]:
    """Digests of every byte of parameters, buffers and optimizer state, identities, classes and plain attributes."""
    state: dict[str, Any] = {"keys": tuple(model.state_dict())}
    for path, module in model.named_modules():
        plain = {k: repr(v) for k, v in vars(module).items() if isinstance(v, (int, float, str, tuple, list))}
        state[f"module {path}"] = (type(module), plain)
    for name, tensor in [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]:
        state[f"tensor {name}"] = (id(tensor), tensor.requires_grad, tensor.stride(), _digest(tensor))
    for index, group in enumerate(optimizer.param_groups if optimizer else ()):
        state[f"param group {index}"] = {k: v for k, v in group.items() if k != "params"}
        for parameter in group["params"]:
            moments = optimizer.state.get(parameter, {}) if optimizer else {}
            state[f"moments {id(parameter)}"] = {
                k: _digest(v) if isinstance(v, Tensor) else v for k, v in moments.items()
            }
    return state


def difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Names the first thing that differs between two fingerprints, or returns ``""``."""
    for key in [*before, *after]:
        if before.get(key) != after.get(key):
            return key if not key.startswith("moments") else "moments of an optimizer"
    return ""


def _digest(tensor: Tensor) -> tuple[tuple[int, ...], str]:
    flat = tensor.detach().contiguous().reshape(-1)
    return tuple(tensor.shape), hashlib.sha1(flat.view(torch.uint8).numpy().data).hexdigest()
