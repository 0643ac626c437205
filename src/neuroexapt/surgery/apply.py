"""The only writer: carries a plan out on a model and its optimizer, every write with its inverse in the undo log.

Parameters keep their identity (same object, same slot of the same param group, new storage: see ``swap``), so
optimizers, schedulers, EMA copies and tied weights stay valid, and swapping back is the undo.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neuroexapt.graph import AttributeEdit, generators_kept, named_tensors
from neuroexapt.surgery.gather import edited
from neuroexapt.surgery.graft import attach, detach
from neuroexapt.surgery.optimizer_state import adopt, check_movable, move_state
from neuroexapt.surgery.pieces import PIECES
from neuroexapt.surgery.plan import GraftEdit, Plan, TensorEdit
from neuroexapt.surgery.swap import Exchange
from neuroexapt.surgery.undo import UndoLog


def write(model: nn.Module, optimizer: Optimizer | None, plan: Plan, log: UndoLog) -> None:
    """Carries out a plan. On an error the caller rolls ``log`` back and everything is as it was.

    Raises:
        SurgeryError: A tensor cannot be replaced, for example because an autograd graph still refers to it.
    """
    tensors = named_tensors(model)
    for edit in plan.tensors:
        _resize(tensors[edit.path], optimizer, edit, log)
    for attribute in plan.attributes:
        _set_attribute(model, attribute, log)
    for graft in plan.grafts:
        _graft(model, optimizer, graft, log)


def _resize(tensor: Tensor, optimizer: Optimizer | None, edit: TensorEdit, log: UndoLog) -> None:
    if optimizer is not None:
        check_movable(optimizer, tensor, edit.path)
    old_shape = tensor.shape
    data = edited(tensor, edit)
    other = nn.Parameter(data, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else data
    log.add(Exchange(tensor, other, edit.path).undo)
    if optimizer is not None:
        move_state(optimizer, tensor, old_shape, edit.maps, log)


def _set_attribute(model: nn.Module, edit: AttributeEdit, log: UndoLog) -> None:
    module = model.get_submodule(edit.module)
    before = getattr(module, edit.name)
    log.add(lambda: setattr(module, edit.name, before))
    setattr(module, edit.name, edit.value)


def _graft(model: nn.Module, optimizer: Optimizer | None, edit: GraftEdit, log: UndoLog) -> None:
    site = model.get_submodule(edit.site)
    like = next((p for p in [*site.parameters(), *model.parameters()] if p.is_floating_point()), torch.empty(0))
    with generators_kept(seed=edit.seed), torch.device("cpu"):
        piece = PIECES[edit.piece](**edit.arguments)
    piece = piece.to(dtype=like.dtype, device=like.device).train(site.training)
    attach(site, piece)
    log.add(lambda: detach(site))
    if optimizer is not None:
        adopt(optimizer, model, list(piece.parameters()), log)
