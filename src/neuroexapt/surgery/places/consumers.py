"""Layers that lose columns when units go, and where each keeps a constant: its bias, or the norm behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuroexapt.graph import ModelGraph, Role, canonical_names, named_tensors
from neuroexapt.surgery.places.neighbours import holders_of, runs_once
from neuroexapt.surgery.plan import TensorEdit


@dataclass(frozen=True, slots=True, eq=False)
class Consumer:
    """A weight ``[out, in / groups, ...]`` of linear layers or convolutions some of whose columns go.

    Attributes:
        weight: Its name.
        dim: The dimension of the columns: 1, or 0 where a matrix is kept as ``[in, out]`` (``Conv1D`` of Transformers).
        modules: All layers that use it; each runs once per forward.
        kept: Columns that stay, int64.
        removed: Columns that go, int64.
        groups: Of the convolution; 1 for a linear layer.
    """

    weight: str
    dim: int
    modules: tuple[str, ...]
    kept: Tensor
    removed: Tensor
    groups: int


@dataclass(frozen=True, slots=True)
class Shift:
    """Where a constant is added to a layer's output.

    Attributes:
        path: Of the tensor that holds it.
        sign: -1 for a running mean, which is subtracted.
        is_new: Whether ``path`` is a slot that is empty now.
        variance: Path of the running variance beside a running mean.
    """

    path: str
    sign: float
    is_new: bool
    variance: str = ""


def losing_columns(graph: ModelGraph, edits: Mapping[str, TensorEdit]) -> dict[str, Consumer | str]:
    """Returns for every weight that reads units that go its consumer, or why it has none."""
    owners = _owners(graph.model)
    found: dict[str, Consumer | str] = {}
    for path, edit in edits.items():
        for dim, kept in enumerate(edit.maps):
            if kept is not None and Role.CONSUME in graph.roles.get((path, dim), ()):
                found[path] = _consumer(graph, path, dim, kept, owners.get(path, []))
    return found


def shift_of(graph: ModelGraph, consumer: Consumer, module: str) -> Shift | None:
    """Returns where a layer's constant goes: its bias, the running mean of a norm directly behind, a new bias.

    ``None`` where its bias is shared, or it has no place for one.
    """
    slots = graph.model.get_submodule(module)._parameters
    bias = slots.get("bias")
    if "bias" not in slots:
        return None
    if bias is not None:
        path = canonical_names(graph.model)[id(bias)]
        return Shift(path, 1.0, is_new=False) if len(holders_of(graph, bias)) == 1 else None
    mean, variance = _statistics_behind(graph, consumer, module)
    if mean and variance:
        return Shift(mean, -1.0, is_new=False, variance=variance)
    return Shift(f"{module}.bias", 1.0, is_new=True)


def _owners(model: nn.Module) -> dict[str, list[str]]:
    names, found = canonical_names(model), dict[str, list[str]]()
    for path, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                found.setdefault(names[id(parameter)], []).append(path)
    return found


def _consumer(graph: ModelGraph, path: str, dim: int, kept: Tensor, owners: list[str]) -> Consumer | str:
    modules = [graph.model.get_submodule(owner) for owner in owners]
    tensor = named_tensors(graph.model)[path]
    is_layer = [_is_layer(graph, owner, tensor, dim) for owner in owners]
    if not modules or not all(is_layer) or not tensor.is_floating_point():
        return "it is not the weight of linear layers or convolutions alone"
    if not all(runs_once(graph, owner) for owner in owners):
        return "its layer does not run exactly once per forward"
    readers = [op for op in graph.tape if any(graph.tape.values[c.operand].parameter == path for c in op.contractions)]
    if len(readers) != len(owners):
        return "something besides its layer reads it"
    is_removed = torch.ones(tensor.shape[dim], dtype=torch.bool)
    is_removed[kept] = False
    groups = getattr(modules[0], "groups", 1)
    return Consumer(path, dim, tuple(owners), kept, is_removed.nonzero().flatten(), groups)


def _is_layer(graph: ModelGraph, owner: str, tensor: Tensor, dim: int) -> bool:
    """Whether a module is one of torch's layers with this weight, or does the same with a matrix ``[in, out]``."""
    module = graph.model.get_submodule(owner)
    if module._parameters.get("weight") is not tensor:
        return False
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return dim == 1
    calls = [call for call in graph.calls if call.path == owner]
    ends = [(*call.inputs[0][-1:], *call.shape[-1:]) for call in calls if call.inputs]
    return dim == 0 and tensor.dim() == 2 and len(ends) == len(calls) and set(ends) == {tuple(tensor.shape)}


def _statistics_behind(graph: ModelGraph, consumer: Consumer, module: str) -> list[str | None]:
    tape = graph.tape
    made = [
        op.outputs[0]
        for op in tape
        if op.module == module and any(tape.values[c.operand].parameter == consumer.weight for c in op.contractions)
    ]
    users = [op for op in tape if made and made[0] in op.inputs]
    numbers = [users[0].number(name) if len(users) == 1 else None for name in ("running_mean", "running_var")]
    return [tape.values[number].parameter if number is not None else None for number in numbers]
