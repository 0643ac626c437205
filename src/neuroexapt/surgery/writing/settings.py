"""Settings that an edit changes beside the model: values of param groups, attributes of the loss."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from torch import nn
from torch.optim import Optimizer

from neuroexapt.errors import SurgeryError
from neuroexapt.surgery.plan import Plan, SettingEdit
from neuroexapt.surgery.writing.undo import UndoLog

logger = logging.getLogger(__name__)


def without_absent(plan: Plan, optimizers: Sequence[Optimizer], loss: nn.Module | None) -> list[SettingEdit]:
    """Returns the settings of all stages whose owner is there; each other one is a warning in the log.

    For a replay: settings are no part of a model, and who replays on a model alone wants the model alone.
    """
    there = []
    for edit in _all(plan):
        if (edit.owner == "loss" and loss is None) or (edit.owner == "optimizer" and not optimizers):
            logger.warning("%s: not set to %g: this replay has no %s", edit.name, edit.value, edit.owner)
        else:
            there.append(edit)
    return there


def write_settings(
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    loss: nn.Module | None,
    plan: Plan,
    log: UndoLog,
    is_replay: bool = False,
) -> None:
    """Changes what the plan says of the optimizers and the loss.

    Args:
        model: Whose modules the edits name.
        optimizers: Those that hold its parameters.
        loss: The loss module, if the caller gave one.
        plan: All of its stages.
        log: Gets the inverse of every write.
        is_replay: A setting without owner is skipped with a warning instead of refused.

    Raises:
        SurgeryError: There is no optimizer, or no loss, or it has no such setting.
    """
    edits = without_absent(plan, optimizers, loss) if is_replay else _all(plan)
    for edit in edits:
        if edit.owner == "loss":
            _set_on_loss(loss, edit, log)
        else:
            _set_on_groups(model, optimizers, edit, log)


def _all(plan: Plan) -> list[SettingEdit]:
    return [edit for stage in plan.stages for edit in stage.settings]


def _set_on_groups(model: nn.Module, optimizers: Sequence[Optimizer], edit: SettingEdit, log: UndoLog) -> None:
    if not optimizers:
        raise SurgeryError(
            f"{edit.name}: found no optimizer, needed one to set it on. Give it: Surgeon(model, inputs, optimizer)."
        )
    module = _module_at(model, edit)
    parameters = list(module.parameters())
    meant = {id(p) for p in parameters if p.dim() > 1} or {id(p) for p in parameters}
    groups = [
        (optimizer, group)
        for optimizer in optimizers
        for group in optimizer.param_groups
        if any(id(p) in meant for p in group["params"])
    ]
    if not groups:
        raise SurgeryError(
            f"{edit.module or type(model).__name__}: found none of its parameters in the optimizer, needed a group to "
            f"set {edit.name} on. Name a module with trained parameters."
        )
    for optimizer, group in groups:
        if edit.name not in group:
            raise SurgeryError(f"{type(optimizer).__name__}: has no setting {edit.name!r}. Use AdamW or SGD.")
        log.add(partial(group.__setitem__, edit.name, group[edit.name]))
        group[edit.name] = edit.value


def _module_at(model: nn.Module, edit: SettingEdit) -> nn.Module:
    try:
        return model.get_submodule(edit.module)
    except AttributeError as error:
        raise SurgeryError(
            f"{edit.module}: {type(model).__name__} has no module of that path; needed one of `named_modules()`, or "
            "none for the whole model."
        ) from error


def _set_on_loss(loss: nn.Module | None, edit: SettingEdit, log: UndoLog) -> None:
    if loss is None:
        raise SurgeryError(
            f"{edit.name}: found no loss module, needed one to set it on. Give it: Surgeon(..., loss=criterion), with "
            "criterion = nn.CrossEntropyLoss()."
        )
    owners = [module for module in loss.modules() if edit.name in vars(module)]
    if not owners:
        raise SurgeryError(f"{type(loss).__name__}: has no setting {edit.name!r}. Use nn.CrossEntropyLoss.")
    for owner in owners:
        log.add(partial(setattr, owner, edit.name, getattr(owner, edit.name)))
        setattr(owner, edit.name, edit.value)
