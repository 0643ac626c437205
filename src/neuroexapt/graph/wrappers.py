"""What people put around a model or into it before they hand it over: taken off, or refused with what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from torch import nn
from torch.nn.utils import parametrizations

from neuroexapt.errors import InputError
from neuroexapt.graph.compiled import without_compiler
from neuroexapt.graph.fakes import named_tensors

# By module and class, because most of these are expensive to import; what is not imported has no objects.
_AROUND_A_MODEL = {
    ("torch.optim.swa_utils", "AveragedModel"): (
        "it is an average of a model, which only follows edits of that model. Give the model that is trained, and "
        "this one as `averages=`; to edit the average alone, give its `.module`."
    ),
}
_ANYWHERE = {
    ("torch.nn.parallel", "DistributedDataParallel"): (
        "its reducer keeps the old storage of every parameter. Delete the wrapper, make the edit on its `.module`, the "
        "same one with the same seed in every process, and wrap it again."
    ),
    (
        "torch.nn.parallel",
        "DataParallel",
    ): "it only copies the model inside. Give its `.module`; the wrapper stays valid.",
    ("torch.distributed.fsdp", "FullyShardedDataParallel"): (
        "a process holds only shards of its parameters. Edit the plain model before it is sharded."
    ),
    ("torch.distributed.fsdp", "FSDPModule"): (
        "a process holds only shards of its parameters. Edit the plain model before `fully_shard`."
    ),
    ("torch.jit", "ScriptModule"): "it is compiled to TorchScript. Give the Python module that it was made from.",
}
_QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")


def unwrapped(model: nn.Module) -> nn.Module:
    """Returns the module that the user wrote, without ``torch.compile``'s shell.

    Raises:
        InputError: It is wrapped, sharded, scripted or quantized in a way that edits cannot reach through.
    """
    model = without_compiler(model)
    _refuse(model, type(model).__name__, _AROUND_A_MODEL)
    for path, module in model.named_modules():
        where = path or type(model).__name__
        _refuse(module, where, _ANYWHERE)
        if type(module).__module__.startswith(_QUANTIZED):
            raise InputError(
                f"{where}: found a quantized `{type(module).__name__}`, needed a floating-point module: packed integer "
                "weights cannot be edited. Edit the floating-point model and quantize it after."
            )
    loaded = sys.modules.get("torch.distributed.tensor")
    for name, parameter in model.named_parameters():
        if loaded is not None and isinstance(parameter, loaded.DTensor):
            raise InputError(
                f"{name}: found a distributed tensor, needed a plain one: a process holds only a shard of it. "
                "Edit the plain model before it is sharded."
            )
    return model


def constrained(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yields the names of tensors whose size a constraint on the whole weight fixes, with the reason."""
    for path, module in model.named_modules():
        for name, several in getattr(module, "parametrizations", {}).items():
            if any(isinstance(one, parametrizations._Orthogonal) for one in several):
                where = f"{path}.parametrizations.{name}".removeprefix(".")
                for inner in named_tensors(several):
                    yield f"{where}.{inner}", "an orthogonal weight would not be orthogonal with new entries"


def is_meta(model: nn.Module) -> bool:
    """Whether the model is on the meta device: sizes without numbers.

    Raises:
        InputError: A part of it is.
    """
    tensors = named_tensors(model)
    bare = [name for name, tensor in tensors.items() if tensor.is_meta]
    if bare and len(bare) < len(tensors):
        other = next(name for name, tensor in tensors.items() if not tensor.is_meta)
        raise InputError(
            f"{bare[0]}: found on the meta device while {other} is not; needed all or none there. "
            "Load the weights of the whole model first, or edit it on the meta device as a whole."
        )
    return bool(bare)


def _refuse(module: nn.Module, where: str, table: dict[tuple[str, str], str]) -> None:
    for (origin, name), advice in table.items():
        kind = getattr(sys.modules.get(origin), name, None)
        if kind is not None and isinstance(module, kind):
            raise InputError(f"{where}: found `{name}`, needed the plain model: {advice}")
