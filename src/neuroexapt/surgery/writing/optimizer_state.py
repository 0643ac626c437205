"""Moving the optimizer's memory with the parameters: transplanted, never rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import ASGD, LBFGS, SGD, Adagrad, Optimizer, Rprop
from torch.utils._pytree import tree_leaves

from neuroexapt.errors import InputError, SurgeryError
from neuroexapt.surgery.writing.gather import gather
from neuroexapt.surgery.writing.undo import UndoLog

_ADVICE = "Use SGD, Adam, AdamW, RMSprop or Adagrad."

# State whose new entries do not begin at zero: Rprop would not move them, ASGD would average them from nowhere.
_FIRST_VALUES: dict[tuple[type[Optimizer], str], Callable[[Tensor, Mapping[str, Any]], Tensor]] = {
    (Adagrad, "sum"): lambda p, group: torch.full_like(p, group["initial_accumulator_value"]),
    (ASGD, "ax"): lambda p, group: p.detach(),
    (Rprop, "step_size"): lambda p, group: torch.full_like(p, float(group["lr"])),
}


def check_movable(optimizer: Optimizer, parameter: Tensor, path: str) -> None:
    """Refuses state that is neither one number nor one floating-point number for each entry of the parameter.

    Raises:
        SurgeryError: Names the state and what to do.
    """
    name = type(optimizer).__name__
    if isinstance(optimizer, LBFGS):
        raise SurgeryError(f"{path}: {name} keeps one history for all parameters, which cannot be moved. {_ADVICE}")
    for key, value in optimizer.state.get(parameter, {}).items():
        for part in tree_leaves(value):
            if not isinstance(part, Tensor) or part.numel() <= 1:
                continue
            if part is not value or part.shape != parameter.shape:
                raise SurgeryError(
                    f"{path}: {name} keeps {key!r} of shape {tuple(part.shape)} for a parameter of shape "
                    f"{tuple(parameter.shape)}; only state of the same shape can be moved. {_ADVICE}"
                )
            is_plain = type(part) in (Tensor, nn.Parameter)
            if not is_plain or not (part.is_floating_point() or part.is_complex()):
                kind = f"{part.dtype}" if is_plain else type(part).__name__
                raise SurgeryError(
                    f"{path}: {name} keeps {key!r} as {kind}: quantized state has blocks that run across rows, and "
                    f"only floating-point state can be moved. Use the 32-bit form of this optimizer."
                )


def move_state(
    optimizer: Optimizer,
    parameter: Tensor,
    old_shape: torch.Size,
    maps: Sequence[Tensor | None],
    log: UndoLog,
    only: Tensor | None = None,
) -> None:
    """Gives a resized parameter its old moments where a slice survives, and first values where it is new.

    Args:
        optimizer: Its state for ``parameter`` still has the old shape.
        parameter: Already resized, same object as before.
        old_shape: The parameter's shape before.
        maps: Where each index came from.
        log: Gets the inverse.
        only: Where the maps hold; everywhere where there is none.
    """
    if parameter not in optimizer.state:  # it may get state of the new shape before it is taken back
        log.add(lambda: optimizer.state.pop(parameter, None))
        return
    old: dict[str, Any] = optimizer.state[parameter]
    group = next((g for g in optimizer.param_groups if any(p is parameter for p in g["params"])), {})
    new = {}
    for key, value in old.items():
        new[key] = value
        if isinstance(value, Tensor) and value.dim() and value.shape == old_shape:
            first = next(
                (f for (kind, k), f in _FIRST_VALUES.items() if isinstance(optimizer, kind) and k == key), None
            )
            new[key] = gather(value, maps, first(parameter, group).to(value) if first else None, only)

    def undo() -> None:
        optimizer.state[parameter] = old

    log.add(undo)
    optimizer.state[parameter] = new


def check_holds(optimizers: Sequence[Optimizer], model: nn.Module) -> None:
    """Refuses an optimizer that has nothing to do with a model.

    Raises:
        InputError: It holds none of the model's parameters.
    """
    own = {id(parameter) for parameter in model.parameters()}
    for optimizer in optimizers:
        if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
            raise InputError(_stranger([optimizer], model))


def _stranger(optimizers: Sequence[Optimizer], model: nn.Module) -> str:
    names = " and ".join(type(optimizer).__name__ for optimizer in optimizers)
    return f"{names} holds no parameter of {type(model).__name__}. Give the optimizer of this model."


def adopt(optimizers: Sequence[Optimizer], model: nn.Module, new: Sequence[nn.Parameter], log: UndoLog) -> None:
    """Puts new parameters into the groups of their siblings: the nearest parameter before them that an optimizer has,
    of the same kind (matrix or vector), so that a split by weight decay is kept. Never a new group: schedulers break.

    Of several optimizers one that has parameters of as many dimensions is taken: Muon takes matrices alone.
    """
    homes = {id(p): (o, g) for o in optimizers for g in o.param_groups for p in g["params"]}
    order = list(model.parameters())
    position = {id(p): i for i, p in enumerate(order)}
    for parameter in new:
        if id(parameter) in homes:
            continue
        known = [p for p in order if id(p) in homes]
        if not known:
            raise SurgeryError(_stranger(optimizers, model))
        here = position[id(parameter)]
        takers = {id(homes[id(p)][0]) for p in known if p.dim() == parameter.dim()}
        known = [p for p in known if id(homes[id(p)][0]) in takers] or known
        alike = [p for p in known if (p.dim() > 1) == (parameter.dim() > 1)] or known
        sibling = min(alike, key=lambda p: (abs(position[id(p)] - here), position[id(p)] > here))
        optimizer, group = homes[id(parameter)] = homes[id(sibling)]
        log.add(partial(_remove, optimizer, parameter))
        group["params"].append(parameter)
        if "param_names" in group:
            group["param_names"].append(next(n for n, p in model.named_parameters() if p is parameter))
        if isinstance(optimizer, SGD) and group["fused"] and _has_momentum(optimizer, group["params"]):
            # torch's fused kernel wants a momentum of all its parameters or of none
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def abandon(optimizers: Sequence[Optimizer], gone: Sequence[nn.Parameter], log: UndoLog) -> None:
    """Takes parameters that the model no longer has out of their groups, with their state."""
    leaving = {id(p) for p in gone}
    for optimizer in optimizers:
        log.add(partial(_reorder, optimizer, list(optimizer.state)))
        for group in optimizer.param_groups:
            kept = [i for i, p in enumerate(group["params"]) if id(p) not in leaving]
            for key in ("params", "param_names"):
                if key in group and len(kept) < len(group[key]):
                    log.add(partial(group[key].__setitem__, slice(None), list(group[key])))
                    group[key][:] = [group[key][i] for i in kept]
        for parameter in gone:
            if parameter in optimizer.state:
                log.add(partial(optimizer.state.__setitem__, parameter, optimizer.state[parameter]))
                del optimizer.state[parameter]


def _reorder(optimizer: Optimizer, parameters: Sequence[Tensor]) -> None:
    """State dicts list the state in the order in which it was made; what came back comes where it was."""
    for parameter in parameters:
        if parameter in optimizer.state:
            optimizer.state[parameter] = optimizer.state.pop(parameter)


def _has_momentum(optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> bool:
    return any(optimizer.state.get(p, {}).get("momentum_buffer") is not None for p in parameters)


def _remove(optimizer: Optimizer, parameter: nn.Parameter) -> None:
    for group in optimizer.param_groups:
        kept = [i for i, p in enumerate(group["params"]) if p is not parameter]
        for key in ("params", "param_names"):
            if key in group:
                group[key][:] = [group[key][i] for i in kept]
    optimizer.state.pop(parameter, None)
