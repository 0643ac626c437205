"""The only writer: carries a plan out on a model and its optimizers, every write with its inverse in the undo log.

Parameters keep their identity (same object, same slot of the same param group, new storage: see ``swap``), so
optimizers, schedulers and tied weights stay valid, and swapping back is the undo.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import FreeAttention, generators_kept, is_meta, named_tensors, set_attribute
from neuroexapt.surgery.pieces import PIECES
from neuroexapt.surgery.plan import GraftEdit, Plan, TensorEdit
from neuroexapt.surgery.writing.derived import compute_again, release_graphs, with_open_masks
from neuroexapt.surgery.writing.gather import edited, gather
from neuroexapt.surgery.writing.graft import attach, detach
from neuroexapt.surgery.writing.masks import lay_on, mask_for
from neuroexapt.surgery.writing.optimizer_state import abandon, adopt, check_movable, move_state
from neuroexapt.surgery.writing.slots import contents, fill_slot, replace
from neuroexapt.surgery.writing.swap import Exchange
from neuroexapt.surgery.writing.undo import UndoLog


class TwoEnded(Protocol):
    """A piece that also hangs at the module whose output it reads."""

    def source_end(self) -> nn.Module:
        """Returns what hangs there; it shares the means of passing a tensor on."""


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
    for stage in plan.stages:
        _write(model, optimizers, stage, log, leader)


def _write(
    model: nn.Module, optimizers: Sequence[Optimizer], plan: Plan, log: UndoLog, leader: nn.Module | None
) -> None:
    tensors, before = named_tensors(model), list(model.parameters())
    for edit in plan.tensors:
        _check(tensors[edit.path], optimizers, edit.path)
    release_graphs(model)
    leaders = named_tensors(leader) if leader is not None else {}
    rewritten = {e.path: contents(tensors, e.path, e.rewrite) for e in plan.tensors if e.rewrite and not is_meta(model)}
    masks = [(e, mask_for(e, tensors, leader)) for e in plan.masks]
    for parameter in plan.parameters:
        fill_slot(model, parameter, tensors, log)
    for edit in with_open_masks(plan.tensors):
        _resize(tensors[edit.path], optimizers, edit, log, leaders.get(edit.path), rewritten.get(edit.path))
    for attribute in plan.attributes:
        log.add(set_attribute(model, attribute))
    compute_again(model, log)
    for path in plan.freed:
        _free(model.get_submodule(path), log)
    for slot in plan.slots:
        replace(model, slot, log)
    for edit_of_mask, mask in masks:
        lay_on(model, edit_of_mask, mask, log)
    for graft in plan.grafts:
        _graft(model, graft, log, leader)
    if optimizers:
        _hand_over(model, optimizers, before, log)


def _hand_over(model: nn.Module, optimizers: Sequence[Optimizer], before: Sequence[nn.Parameter], log: UndoLog) -> None:
    """The optimizers get the parameters that came and lose those that went."""
    had, has = {id(p) for p in before}, {id(p) for p in model.parameters()}
    abandon(optimizers, [p for p in before if id(p) not in has], log)
    adopt(optimizers, model, [p for p in model.parameters() if id(p) not in had], log)


def _check(tensor: Tensor, optimizers: Sequence[Optimizer], path: str) -> None:
    if tensor.grad is not None and tensor.grad.layout != torch.strided:
        raise SurgeryError(f"{path}: has a sparse gradient, which cannot be moved. Call optimizer.zero_grad() first.")
    for optimizer in optimizers:
        check_movable(optimizer, tensor, path)


def _resize(
    tensor: Tensor,
    optimizers: Sequence[Optimizer],
    edit: TensorEdit,
    log: UndoLog,
    leader: Tensor | None,
    rewritten: Tensor | None,
) -> None:
    old_shape, grad = tensor.shape, tensor.grad
    data = (
        gather(tensor, edit.maps, only=edit.only) if tensor.is_meta or rewritten is not None else edited(tensor, edit)
    )
    if rewritten is not None:
        data.copy_(rewritten)
    if leader is not None and edit.fill.kind == "normal":
        has_source = gather(torch.ones_like(tensor, dtype=torch.bool), edit.maps)
        data.copy_(torch.where(has_source, data, leader.detach().to(data)))
    other = nn.Parameter(data, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else data
    if grad is not None:
        other.grad = gather(grad, edit.maps, only=edit.only)
    log.add(Exchange(tensor, other, edit.path).undo)
    for optimizer in optimizers:
        move_state(optimizer, tensor, old_shape, edit.maps, log, edit.only)


def _free(module: nn.Module, log: UndoLog) -> None:
    def undo() -> None:
        module.__class__ = nn.MultiheadAttention

    log.add(undo)
    module.__class__ = FreeAttention


def _graft(model: nn.Module, edit: GraftEdit, log: UndoLog, leader: nn.Module | None) -> None:
    site = model.get_submodule(edit.site)
    like = next((p for p in [*site.parameters(), *model.parameters()] if p.is_floating_point()), torch.empty(0))
    with generators_kept(seed=edit.seed), torch.device("meta" if like.is_meta else "cpu"):
        piece = PIECES[edit.piece](**edit.arguments)
    piece = piece.to(dtype=like.dtype, device=like.device).train(site.training)
    if leader is not None and not any(p.requires_grad for p in model.parameters()):
        piece.requires_grad_(False)  # averages are mostly frozen as a whole
    ends = [(site, piece)]
    if edit.reads:
        ends.insert(0, (model.get_submodule(edit.reads), cast(TwoEnded, piece).source_end()))
    for module, end in ends:
        attach(module, end)
        log.add(partial(detach, module))
