"""Everything about a model and its optimizer that an edit must not disturb, as comparable values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def fingerprint(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Bytes of all tensors and gradients, identities, classes, attributes, optimizer state, global generator."""
    modules = {
        path: (type(module), module.training, {k: v for k, v in vars(module).items() if isinstance(v, (int, tuple))})
        for path, module in model.named_modules()
    }
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {
        "keys": list(model.state_dict()),
        "modules": modules,
        "tensors": {name: (id(t), t.requires_grad, t.is_contiguous(), raw(t)) for name, t in tensors},
        "gradients": {name: None if t.grad is None else raw(t.grad) for name, t in tensors},
        "groups": [
            ([id(p) for p in group["params"]], {k: v for k, v in group.items() if k != "params"})
            for group in optimizer.param_groups
        ],
        "state": {
            id(p): {k: raw(v) if isinstance(v, Tensor) else v for k, v in state.items()}
            for p, state in optimizer.state.items()
        },
        "generator": torch.get_rng_state().numpy().tobytes(),
    }


def raw(tensor: Tensor) -> tuple[tuple[int, ...], bytes]:
    return tuple(tensor.shape), tensor.detach().contiguous().view(
        torch.uint8 if tensor.dim() else tensor.dtype
    ).numpy().tobytes()
