"""The only writer: carries a plan out on a model and its optimizers, every write with its inverse in the undo log.

Parameters keep their identity (same object, same slot of the same param group, new storage: see ``swap``), so
optimizers, schedulers and tied weights stay valid, and swapping back is the undo.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import FreeAttention, generators_kept, named_tensors, set_attribute
from neuroexapt.surgery.derived import compute_again, release_graphs, with_open_masks
from neuroexapt.surgery.gather import edited, gather
from neuroexapt.surgery.graft import attach, detach
from neuroexapt.surgery.optimizer_state import adopt, check_movable, move_state
from neuroexapt.surgery.pieces import PIECES
from neuroexapt.surgery.plan import GraftEdit, Plan, TensorEdit
from neuroexapt.surgery.swap import Exchange
from neuroexapt.surgery.undo import UndoLog


def write(
    model: nn.Module, optimizers: Sequence[Optimizer], plan: Plan, log: UndoLog, leader: nn.Module | None = None
) -> None:
    """Carries out a plan. On an error the caller rolls ``log`` back and everything is as it was.

    Args:
        model: What is edited.
        optimizers: Whose state moves along.
        plan: What to change.
        log: Gets the inverse of every write.
        leader: Where ``model`` is an average of another that has been edited already: that one.

    Raises:
        SurgeryError: A tensor cannot be replaced, for example because an autograd graph still refers to it.
    """
    tensors = named_tensors(model)
    for edit in plan.tensors:
        _check(tensors[edit.path], optimizers, edit.path)
    release_graphs(model)
    leaders = named_tensors(leader) if leader is not None else {}
    for edit in with_open_masks(plan.tensors):
        _resize(tensors[edit.path], optimizers, edit, log, leaders.get(edit.path))
    for attribute in plan.attributes:
        log.add(set_attribute(model, attribute))
    compute_again(model, log)
    for path in plan.freed:
        _free(model.get_submodule(path), log)
    for graft in plan.grafts:
        _graft(model, optimizers, graft, log, leader)


def _check(tensor: Tensor, optimizers: Sequence[Optimizer], path: str) -> None:
    if tensor.grad is not None and tensor.grad.layout != torch.strided:
        raise SurgeryError(f"{path}: has a sparse gradient, which cannot be moved. Call optimizer.zero_grad() first.")
    for optimizer in optimizers:
        check_movable(optimizer, tensor, path)


def _resize(
    tensor: Tensor, optimizers: Sequence[Optimizer], edit: TensorEdit, log: UndoLog, leader: Tensor | None
) -> None:
    old_shape, grad = tensor.shape, tensor.grad
    data = gather(tensor, edit.maps) if tensor.is_meta else edited(tensor, edit)
    if leader is not None and edit.fill.kind == "normal":
        has_source = gather(torch.ones_like(tensor, dtype=torch.bool), edit.maps)
        data.copy_(torch.where(has_source, data, leader.detach().to(data)))
    other = nn.Parameter(data, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else data
    if grad is not None:
        other.grad = gather(grad, edit.maps)
    log.add(Exchange(tensor, other, edit.path).undo)
    for optimizer in optimizers:
        move_state(optimizer, tensor, old_shape, edit.maps, log)


def _free(module: nn.Module, log: UndoLog) -> None:
    def undo() -> None:
        module.__class__ = nn.MultiheadAttention

    log.add(undo)
    module.__class__ = FreeAttention


def _graft(
    model: nn.Module, optimizers: Sequence[Optimizer], edit: GraftEdit, log: UndoLog, leader: nn.Module | None
) -> None:
    site = model.get_submodule(edit.site)
    like = next((p for p in [*site.parameters(), *model.parameters()] if p.is_floating_point()), torch.empty(0))
    with generators_kept(seed=edit.seed), torch.device("cpu"):
        piece = PIECES[edit.piece](**edit.arguments)
    piece = piece.to(dtype=like.dtype, device=like.device).train(site.training)
    if leader is not None and not any(p.requires_grad for p in model.parameters()):
        piece.requires_grad_(False)  # averages are mostly frozen as a whole
    attach(site, piece)
    log.add(lambda: detach(site))
    if optimizers:
        adopt(optimizers, model, list(piece.parameters()), log)
