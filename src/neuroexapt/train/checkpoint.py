"""Saving and loading a grown model with its optimizer: weights by name, architecture as lineage, no pickle.

A checkpoint is a directory of safetensors and JSON with a manifest of digests; loading replays the lineage on the seed
model and then fills in the values. The state dict inside opens anywhere.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neuroexapt.errors import CheckpointError, SurgeryError
from neuroexapt.graph import named_tensors
from neuroexapt.surgery import Lineage, Surgeon, replay
from neuroexapt.train.payload import Payload
from neuroexapt.train.store import read_checkpoint, write_checkpoint

FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What ``load_checkpoint`` returns.

    Attributes:
        surgeon: Holds the grown model and goes on from its lineage.
        extra: What the caller saved beside it.
    """

    surgeon: Surgeon
    extra: dict[str, Any]


def save_checkpoint(
    directory: str | Path,
    model: nn.Module,
    lineage: Lineage,
    optimizer: Optimizer | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Writes one checkpoint directory; it appears whole or not at all.

    Args:
        directory: Must not exist.
        model: The grown model.
        lineage: How it grew from the seed model (``surgeon.lineage``).
        optimizer: Saved by parameter name, if given.
        extra: Anything else that is JSON.

    Raises:
        CheckpointError: The directory exists or cannot be written.
    """
    state = {"lineage": lineage.to_json(), "extra": dict(extra or {})}
    write_checkpoint(Path(directory), to_payload(model, optimizer, state))


def load_checkpoint(
    directory: str | Path, seed_model: nn.Module, example_inputs: Any, optimizer: Optimizer | None = None
) -> Checkpoint:
    """Grows the seed model by the saved lineage and fills in the saved values.

    Args:
        directory: From ``save_checkpoint``.
        seed_model: The model that the lineage began with; edited in place.
        example_inputs: One batch of inputs.
        optimizer: Of the seed model; gets the saved state.

    Raises:
        CheckpointError: A file is damaged, or the checkpoint does not fit the seed model.
    """
    payload = read_checkpoint(Path(directory))
    try:
        surgeon = replay(seed_model, Lineage.from_json(payload.state["lineage"]), example_inputs, optimizer)
    except SurgeryError as error:
        raise CheckpointError(f"{directory}: {error}") from error
    fill(payload, seed_model, optimizer, str(directory))
    return Checkpoint(surgeon, payload.state["extra"])


def load_grown(path: Path, seed_model: nn.Module, example_inputs: Any, device: torch.device) -> nn.Module:
    """Returns the model of a run's checkpoint, grown on a copy of its seed network.

    Raises:
        CheckpointError: The checkpoint is damaged or does not fit.
    """
    payload = read_checkpoint(path)
    model = copy.deepcopy(seed_model).to(device)
    try:
        replay(model, Lineage.from_json(payload.state["engine"]["lineage"]), example_inputs)
    except (SurgeryError, KeyError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    fill(payload, model, None, str(path))
    return model


def to_payload(model: nn.Module, optimizer: Optimizer | None, state: Mapping[str, Any]) -> Payload:
    """Returns values by name, plus ``state`` and the optimizer's settings, ready for a store."""
    tensors = {"model": dict(named_tensors(model))}
    settings: dict[str, Any] = {}
    if optimizer is not None:
        names = {id(p): name for name, p in model.named_parameters()}
        tensors["optimizer"], scalars = {}, {}
        for parameter, values in optimizer.state.items():
            for key, value in values.items():
                where = f"{names[id(parameter)]}/{key}"
                if isinstance(value, Tensor):
                    tensors["optimizer"][where] = value
                else:
                    scalars[where] = value
        groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
        members = [[names[id(p)] for p in g["params"]] for g in optimizer.param_groups]
        settings = {"groups": groups, "members": members, "scalars": scalars, "kind": type(optimizer).__name__}
    return Payload(tensors=tensors, state={"format": FORMAT, "optimizer": settings, **state})


def fill(payload: Payload, model: nn.Module, optimizer: Optimizer | None, where: str) -> None:
    """Copies saved values into a model of the same architecture and into its optimizer.

    Raises:
        CheckpointError: Names, shapes or the optimizer's kind differ; the message says which.
    """
    if payload.state.get("format") != FORMAT:
        raise CheckpointError(f"{where}: found format {payload.state.get('format')!r}, needed {FORMAT}.")
    own, saved = named_tensors(model), payload.tensors["model"]
    if wrong := sorted(own.keys() ^ saved.keys()):
        raise CheckpointError(
            f"{where}: parameters differ from the model's: {', '.join(wrong[:5])}. Use its seed model."
        )
    for name, tensor in own.items():
        if tensor.shape != saved[name].shape:
            raise CheckpointError(
                f"{where}: {name}: found shape {tuple(saved[name].shape)}, needed {tuple(tensor.shape)}. "
                "Use the seed model that the run began with."
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])
    if optimizer is not None:
        _fill_optimizer(payload, model, optimizer, where)


def _fill_optimizer(payload: Payload, model: nn.Module, optimizer: Optimizer, where: str) -> None:
    settings = payload.state["optimizer"]
    if settings.get("kind") != type(optimizer).__name__:
        raise CheckpointError(f"{where}: found {settings.get('kind')}, needed {type(optimizer).__name__}.")
    named = dict(model.named_parameters())
    optimizer.state.clear()
    for source in (payload.tensors.get("optimizer", {}), settings["scalars"]):
        for path, value in source.items():
            name, _, key = path.rpartition("/")
            parameter = named[name]
            if isinstance(value, Tensor) and value.dim():
                value = value.to(parameter.device)
            optimizer.state[parameter][key] = value
    for group, saved, members in zip(optimizer.param_groups, settings["groups"], settings["members"], strict=True):
        group.update({k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()})
        group["params"][:] = [named[name] for name in members]
