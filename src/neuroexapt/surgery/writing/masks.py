"""Pruning masks, laid on and taken off: torch's own (``torch.nn.utils.prune``), each write with its inverse.

The parameter stays the same object in the same place of the module: ``weight`` becomes ``weight_orig``, and back.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from neuroexapt.surgery.plan import MaskEdit
from neuroexapt.surgery.writing.undo import UndoLog


def lay_on(model: nn.Module, edit: MaskEdit, mask: Tensor | None, log: UndoLog) -> None:
    """Gives a weight a mask, or another one than it has; ``None`` takes it off and leaves the numbers under it.

    Args:
        model: What is edited.
        edit: Where.
        mask: In the shape of the weight.
        log: Gets the inverse.
    """
    module, name = model.get_submodule(edit.module), edit.name
    is_masked = f"{name}_mask" in module._buffers
    log.add(partial(_put_back, module, name, _state(module, name)))
    if mask is None:
        _take_off(module, name)
        return
    if is_masked:
        module._buffers[f"{name}_mask"] = mask
        computed = module._parameters[f"{name}_orig"].detach() * mask  # type: ignore[union-attr]
    else:
        order = list(module._parameters)
        prune.custom_from_mask(module, name, mask)  # type: ignore[no-untyped-call]
        _reorder(module._parameters, [f"{name}_orig" if key == name else key for key in order])
        computed = vars(module)[name].detach()
    vars(module)[name] = computed  # without its graph, which would hold the parameter


def _take_off(module: nn.Module, name: str) -> None:
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, prune.BasePruningMethod) and hook._tensor_name == name:
            del module._forward_pre_hooks[key]
    order = [name if key == f"{name}_orig" else key for key in module._parameters]
    module._parameters[name] = module._parameters[f"{name}_orig"]
    _reorder(module._parameters, order)
    del module._buffers[f"{name}_mask"], vars(module)[name]


def _reorder(store: dict[str, Any], order: list[str]) -> None:
    """Keeps what is named, in this order: state dicts list parameters in the order of their slots."""
    kept = {key: store[key] for key in order}
    store.clear()
    store.update(kept)


def _stores(module: nn.Module) -> tuple[dict[Any, Any], ...]:
    return module._parameters, module._buffers, module._forward_pre_hooks


def _state(module: nn.Module, name: str) -> tuple[list[dict[Any, Any]], Tensor | None]:
    return [dict(store) for store in _stores(module)], vars(module).get(name)


def _put_back(module: nn.Module, name: str, state: tuple[list[dict[Any, Any]], Tensor | None]) -> None:
    stores, computed = state
    for store, before in zip(_stores(module), stores, strict=True):
        store.clear()
        store.update(before)
    vars(module).pop(name, None)
    if computed is not None:
        vars(module)[name] = computed


def mask_for(edit: MaskEdit, tensors: Mapping[str, Tensor], leader: nn.Module | None) -> Tensor | None:
    """Returns the new mask: an average takes its leader's, on the meta device all that counts is the shape."""
    if edit.contents is None:
        return None
    stem = f"{edit.module}.{edit.name}".removeprefix(".")
    like = tensors[stem if stem in tensors else f"{stem}_orig"]
    if leader is not None:
        mask = leader.get_submodule(edit.module)._buffers[f"{edit.name}_mask"]
    else:
        mask = torch.ones_like(like, requires_grad=False) if like.is_meta else edit.contents(tensors)
    assert mask is not None
    return mask.detach().to(dtype=like.dtype, device=like.device).clone()


def is_mask(path: str, names: Container[str]) -> bool:
    """Whether a tensor is a mask of ``torch.nn.utils.prune``, whose entries are 0 and 1."""
    stem, _, kind = path.rpartition("_")
    return kind == "mask" and path in names and f"{stem}_orig" in names


def effective(tensors: Mapping[str, Tensor], path: str) -> Tensor:
    """Returns a weight as the layer uses it: under the mask of ``torch.nn.utils.prune`` where there is one."""
    tensor = tensors[path].detach()
    stem = path.rpartition("_")[0]
    if path in (f"{stem}_orig", f"{stem}_mask") and is_mask(f"{stem}_mask", tensors):
        return tensors[f"{stem}_orig"].detach() * tensors[f"{stem}_mask"].detach()
    return tensor
