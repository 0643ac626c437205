"""Moving the optimizer's memory with the parameters: transplanted, never rebuilt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.utils._pytree import tree_leaves

from neuroexapt.errors import SurgeryError
from neuroexapt.surgery.gather import gather
from neuroexapt.surgery.undo import UndoLog

_ADVICE = "Use SGD, Adam, AdamW, RMSprop or Adagrad."


def check_movable(optimizer: Optimizer, parameter: Tensor, path: str) -> None:
    """Refuses state that is neither one number nor of the parameter's own shape.

    Raises:
        SurgeryError: Names the state and what to do.
    """
    name = type(optimizer).__name__
    if isinstance(optimizer, LBFGS):
        raise SurgeryError(f"{path}: {name} keeps one history for all parameters, which cannot be moved. {_ADVICE}")
    for key, value in optimizer.state.get(parameter, {}).items():
        for part in tree_leaves(value):
            is_moved = part is value and part.shape == parameter.shape if isinstance(part, Tensor) else True
            if not is_moved and part.numel() > 1:
                raise SurgeryError(
                    f"{path}: {name} keeps {key!r} of shape {tuple(part.shape)} for a parameter of shape "
                    f"{tuple(parameter.shape)}; only state of the same shape can be moved. {_ADVICE}"
                )


def move_state(
    optimizer: Optimizer, parameter: Tensor, old_shape: torch.Size, maps: Sequence[Tensor | None], log: UndoLog
) -> None:
    """Gives a resized parameter its old moments where a slice survives and zeros where it is new.

    Args:
        optimizer: Its state for ``parameter`` still has the old shape.
        parameter: Already resized, same object as before.
        old_shape: The parameter's shape before.
        maps: Where each index came from.
        log: Gets the inverse.
    """
    if parameter not in optimizer.state:  # it may get state of the new shape before it is taken back
        log.add(lambda: optimizer.state.pop(parameter, None))
        return
    old: dict[str, Any] = optimizer.state[parameter]
    new = {
        key: gather(value, maps) if isinstance(value, Tensor) and value.dim() and value.shape == old_shape else value
        for key, value in old.items()
    }

    def undo() -> None:
        optimizer.state[parameter] = old

    log.add(undo)
    optimizer.state[parameter] = new


def adopt(optimizer: Optimizer, model: nn.Module, new: Sequence[nn.Parameter], log: UndoLog) -> None:
    """Puts new parameters into the groups of their siblings: the nearest parameter before them that the optimizer has,
    of the same kind (matrix or vector), so that a split by weight decay is kept. Never a new group: schedulers break.
    """
    groups: dict[int, list[Any]] = {id(p): g["params"] for g in optimizer.param_groups for p in g["params"]}
    order = list(model.parameters())
    position = {id(p): i for i, p in enumerate(order)}
    for parameter in new:
        if id(parameter) in groups:
            continue
        known = [p for p in order if id(p) in groups]
        if not known:
            raise SurgeryError(
                f"{type(optimizer).__name__} holds no parameter of {type(model).__name__}. "
                "Give the optimizer of this model."
            )
        here = position[id(parameter)]
        alike = [p for p in known if (p.dim() > 1) == (parameter.dim() > 1)] or known
        sibling = min(alike, key=lambda p: (abs(position[id(p)] - here), position[id(p)] > here))
        members = groups[id(sibling)]
        members.append(parameter)
        groups[id(parameter)] = members
        log.add(partial(_remove, optimizer, parameter))


def _remove(optimizer: Optimizer, parameter: nn.Parameter) -> None:
    for group in optimizer.param_groups:
        group["params"][:] = [p for p in group["params"] if p is not parameter]
    optimizer.state.pop(parameter, None)
