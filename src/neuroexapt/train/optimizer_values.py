"""An optimizer's state by parameter name, so that it fits a model that was built again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from neuroexapt.errors import CheckpointError
from neuroexapt.train.payload import Payload


def optimizer_values(model: nn.Module, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the state's tensors as ``<parameter>/<key>``, and all the rest as JSON.

    Raises:
        CheckpointError: The optimizer holds a parameter that the model does not have.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    if any(id(p) not in names for group in optimizer.param_groups for p in group["params"]):
        raise CheckpointError(
            f"{type(optimizer).__name__} holds a parameter that {type(model).__name__} does not have. "
            "Save the model that it belongs to."
        )
    tensors, scalars = {}, {}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            where = f"{names[id(parameter)]}/{key}"
            if isinstance(value, Tensor):
                tensors[where] = value
            else:
                scalars[where] = value
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    members = [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]
    return tensors, {"groups": groups, "members": members, "scalars": scalars, "kind": type(optimizer).__name__}


def check_optimizer(settings: Mapping[str, Any], optimizer: Optimizer, where: str) -> None:
    """Checks that saved settings are of an optimizer of this kind with as many groups.

    Raises:
        CheckpointError: They are not.
    """
    kind = type(optimizer).__name__
    if settings.get("kind") != kind:
        found = settings.get("kind") or "no optimizer"
        raise CheckpointError(f"{where}: found {found}, needed {kind}. Give the kind of optimizer that was saved.")
    if (found := len(settings["groups"])) != (needed := len(optimizer.param_groups)):
        raise CheckpointError(
            f"{where}: found {found} param groups, needed {needed}. Build the optimizer with the groups it had."
        )


def fill_optimizer(payload: Payload, model: nn.Module, optimizer: Optimizer, where: str) -> None:
    """Puts saved state, settings and members into an optimizer that passed ``check_optimizer``.

    Raises:
        CheckpointError: The saved optimizer had other parameters than the model has.
    """
    settings, tensors = payload.state["optimizer"], payload.tensors.get("optimizer", {})
    named = dict(model.named_parameters())
    values = {**tensors, **settings["scalars"]}
    held = {name for members in settings["members"] for name in members} | {p.rpartition("/")[0] for p in values}
    if unknown := sorted(held - named.keys()):
        raise CheckpointError(
            f"{where}: the optimizer holds {unknown[0]}, which {type(model).__name__} does not have. "
            "Use its seed model."
        )
    optimizer.state.clear()
    for path, value in values.items():
        name, _, key = path.rpartition("/")
        is_like_parameter = isinstance(value, Tensor) and value.dim() > 0
        optimizer.state[named[name]][key] = value.to(named[name].device) if is_like_parameter else value
    for group, saved, members in zip(optimizer.param_groups, settings["groups"], settings["members"], strict=True):
        group.update({k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()})
        group["params"][:] = [named[name] for name in members]
