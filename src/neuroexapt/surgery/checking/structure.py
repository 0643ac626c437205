"""Copies of a model: of its structure alone, on which later steps of a plan are planned, or with its numbers, on which
a plan is tried out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from neuroexapt.graph import ModelGraph, attributes_kept, named_tensors
from neuroexapt.surgery.plan import Plan
from neuroexapt.surgery.writing.apply import write
from neuroexapt.surgery.writing.undo import UndoLog


def structure_of(model: nn.Module) -> nn.Module:
    """Returns a deep copy whose parameters and buffers are on the meta device; nothing of their size is allocated.

    Ties, train mode, hooks and Python attributes are the model's.
    """
    return _copied(
        model, lambda t: torch.empty_strided(t.size(), t.stride(), dtype=t.dtype, device=torch.device("meta"))
    )


def edited_twin(graph: ModelGraph, plan: Plan) -> nn.Module:
    """Returns a copy of the model with its numbers and no gradients, on which a plan has been carried out.

    To measure what an edit would do before it is done. Memory: another model.
    """
    twin = _copied(graph.model, lambda tensor: tensor.detach().clone())
    write(twin, (), plan, UndoLog())
    return twin


def _copied(model: nn.Module, make: Callable[[Tensor], Tensor]) -> nn.Module:
    memo: dict[int, Any] = {}
    for tensor in named_tensors(model).values():
        other = make(tensor)
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(other, requires_grad=tensor.requires_grad) if is_parameter else other
    for module in model.modules():
        for value in vars(module).values():  # a weight that an old-style hook computes, which deepcopy refuses
            if isinstance(value, Tensor) and value.grad_fn is not None:
                memo[id(value)] = make(value)
    with attributes_kept(model):
        return copy.deepcopy(model, memo)
