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
from neuroexapt.surgery import Lineage, Surgeon, replay
from neuroexapt.train.optimizer_values import check_optimizer, fill_optimizer, optimizer_values
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

    A damaged file and an optimizer of another kind or with other groups are found before anything is changed. Another
    seed model shows itself while it grows, so after that error it is of no use: build it again.

    Args:
        directory: From ``save_checkpoint``.
        seed_model: The model that the lineage began with; edited in place.
        example_inputs: One batch of inputs.
        optimizer: Of the seed model; gets the saved state.

    Raises:
        CheckpointError: A file is damaged, or the checkpoint fits neither the seed model nor the optimizer.
    """
    payload = read_checkpoint(Path(directory))
    check_fit(payload, optimizer, str(directory))
    try:
        surgeon = replay(seed_model, Lineage.from_json(payload.state["lineage"]), example_inputs, optimizer)
    except KeyError as error:
        raise CheckpointError(f"{directory}: found no {error}; it was not written by save_checkpoint.") from error
    except SurgeryError as error:
        raise CheckpointError(f"{directory}: {error} Build the seed model that it was saved with.") from error
    fill(payload, seed_model, optimizer, str(directory))
    return Checkpoint(surgeon, payload.state["extra"])


def load_grown(path: Path, seed_model: nn.Module, example_inputs: Any, device: torch.device) -> nn.Module:
    """Returns the model of a run's checkpoint, grown on a copy of its seed network.

    Raises:
        CheckpointError: The checkpoint is damaged or does not fit.
    """
    payload = read_checkpoint(path)
    check_fit(payload, None, str(path))
    model = copy.deepcopy(seed_model).to(device)
    try:
        replay(model, Lineage.from_json(payload.state["engine"]["lineage"]), example_inputs)
    except KeyError as error:
        raise CheckpointError(f"{path}: found no {error}; it is not the checkpoint of a run.") from error
    except SurgeryError as error:
        raise CheckpointError(f"{path}: {error}") from error
    fill(payload, model, None, str(path))
    return model


def to_payload(model: nn.Module, optimizer: Optimizer | None, state: Mapping[str, Any]) -> Payload:
    """Returns values by name, plus ``state`` and the optimizer's settings, ready for a store.

    The tensors of the model's state dict come under ``model``, its other buffers under ``buffers``.

    Raises:
        CheckpointError: The optimizer holds a parameter that the model does not have.
    """
    own, transient = _own_tensors(model)
    tensors = {"model": own, "buffers": transient}
    settings: dict[str, Any] = {}
    if optimizer is not None:
        tensors["optimizer"], settings = optimizer_values(model, optimizer)
    return Payload(tensors=tensors, state={"format": FORMAT, "optimizer": settings, **state})


def check_fit(payload: Payload, optimizer: Optimizer | None, where: str) -> None:
    """Checks what can be checked before a model has grown.

    Raises:
        CheckpointError: The format is unknown, or the optimizer is of another kind or has other groups.
    """
    if payload.state.get("format") != FORMAT:
        raise CheckpointError(
            f"{where}: found format {payload.state.get('format')!r}, needed {FORMAT}. "
            "Read it with the version of neuroexapt that wrote it."
        )
    if optimizer is not None:
        check_optimizer(payload.state["optimizer"], optimizer, where)


def fill(payload: Payload, model: nn.Module, optimizer: Optimizer | None, where: str) -> None:
    """Copies saved values into a model of the same architecture and into its optimizer.

    Raises:
        CheckpointError: Names, shapes or types differ; the message says which, and nothing has been copied.
    """
    persistent, transient = _own_tensors(model)
    own, saved = persistent | transient, {**payload.tensors["model"], **payload.tensors["buffers"]}
    if wrong := sorted(own.keys() ^ saved.keys()):
        raise CheckpointError(
            f"{where}: parameters differ from the model's: {', '.join(wrong[:5])}. Use its seed model."
        )
    for name, tensor in own.items():
        found, needed = (saved[name].dtype, tuple(saved[name].shape)), (tensor.dtype, tuple(tensor.shape))
        if found != needed:
            raise CheckpointError(
                f"{where}: {name}: found {found[0]} {list(found[1])}, needed {needed[0]} {list(needed[1])}. "
                "Use the seed model that the run began with."
            )
    if optimizer is not None:
        fill_optimizer(payload, model, optimizer, where)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])


def _own_tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns what the state dict holds, tied tensors under each of their names, and the buffers that it leaves out."""
    transient = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules(remove_duplicate=False)
        for name in module._non_persistent_buffers_set
    }
    everything = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    return (
        {name: tensor for name, tensor in everything.items() if name not in transient},
        {name: tensor for name, tensor in everything.items() if name in transient},
    )
