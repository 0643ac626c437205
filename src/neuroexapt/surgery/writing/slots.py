"""Modules that leave their place and parameters that appear in one: the writes that change no existing tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from neuroexapt.errors import SurgeryError
from neuroexapt.surgery.plan import ParameterEdit, SlotEdit
from neuroexapt.surgery.writing.graft import is_piece_path, site_of, ungraft
from neuroexapt.surgery.writing.undo import UndoLog


def replace(model: nn.Module, edit: SlotEdit, log: UndoLog) -> None:
    """Puts another module in every place where a module is registered.

    A site whose last piece leaves is of its own class again, so that its pickle does not need this package.
    """
    leaving = model.get_submodule(edit.path)
    coming = model.get_submodule(edit.source) if edit.source else nn.Identity().train(leaving.training)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is leaving:
                log.add(partial(parent._modules.__setitem__, name, leaving))
                parent._modules[name] = coming
    if is_piece_path(edit.path):
        log.add(ungraft(model.get_submodule(site_of(edit.path))))


def fill_slot(model: nn.Module, edit: ParameterEdit, tensors: Mapping[str, Tensor], log: UndoLog) -> None:
    """Gives a module a parameter where it keeps an empty slot for one.

    Raises:
        SurgeryError: The slot is not empty.
    """
    module = model.get_submodule(edit.module)
    if module._parameters.get(edit.name, edit) is not None:
        raise SurgeryError(
            f"{edit.module}: found no empty slot {edit.name!r}, needed one as in Conv2d(bias=False). Choose another."
        )
    like = next(iter(module.parameters(recurse=False)))
    is_meta = any(tensor.is_meta for tensor in tensors.values())
    data = torch.empty(edit.shape, device="meta") if is_meta else edit.contents(tensors).detach().clone()
    log.add(partial(module._parameters.__setitem__, edit.name, None))
    module._parameters[edit.name] = nn.Parameter(data.to(like), requires_grad=like.requires_grad)


def contents(tensors: Mapping[str, Tensor], path: str, make: Callable[[Mapping[str, Tensor]], Tensor]) -> Tensor:
    """Returns rewritten contents in the dtype, device and memory format of the tensor that they are for."""
    old = tensors[path]
    with torch.no_grad():
        return make(tensors).detach().to(dtype=old.dtype, device=old.device).clone()
