"""A model's structure without its numbers: a copy on the meta device, on which later steps of a plan are planned."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from neuroexapt.graph import attributes_kept, named_tensors


def structure_of(model: nn.Module) -> nn.Module:
    """Returns a deep copy whose parameters and buffers are on the meta device; nothing of their size is allocated.

    Ties, train mode, hooks and Python attributes are the model's.
    """
    memo: dict[int, Any] = {}
    for tensor in named_tensors(model).values():
        empty = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=tensor.requires_grad) if is_parameter else empty
    with attributes_kept(model):
        return copy.deepcopy(model, memo)
