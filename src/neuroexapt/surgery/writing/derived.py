"""Weights that old-style hooks compute: ``torch.nn.utils.weight_norm``, ``spectral_norm`` and pruning masks.

Such a hook leaves its result behind as a plain attribute, with the autograd graph that it came from. The graph would
keep the parameters from being exchanged, and the result would keep its old shape until the next forward. So the graph
is let go before an edit, and the weight is computed again after it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from neuroexapt.surgery.pieces import SkipConnection
from neuroexapt.surgery.plan import Fill, TensorEdit
from neuroexapt.surgery.writing.undo import UndoLog


def release_graphs(model: nn.Module) -> None:
    """Replaces every computed weight by the same numbers without their graph; the next forward makes another.

    A forward that broke off may have left an activation on the wire of a skip connection; that goes too.
    """
    for module in model.modules():
        if isinstance(module, SkipConnection):
            module.wire.release()
        for hook in _weight_hooks(module):
            vars(module)[_name(hook)] = vars(module)[_name(hook)].detach()


def compute_again(model: nn.Module, log: UndoLog) -> None:
    """Gives every computed weight the shape that its parameters have now."""
    for module in model.modules():
        for hook in _weight_hooks(module):
            before = vars(module)[_name(hook)]
            log.add(partial(vars(module).__setitem__, _name(hook), before))
            with torch.no_grad():
                vars(module)[_name(hook)] = _computed(hook, module)


def with_open_masks(edits: Sequence[TensorEdit]) -> list[TensorEdit]:
    """Lets pruning masks pass new entries; where they were to be silent, the weight under the mask is."""
    by_path = {edit.path: edit for edit in edits}
    for mask in edits:
        under = by_path.get(f"{mask.path.removesuffix('_mask')}_orig")
        if under is not None and mask.path.endswith("_mask"):
            zero_dims = tuple(sorted({*under.fill.zero_dims, *mask.fill.zero_dims}))
            fill = replace(under.fill, zero_dims=zero_dims)
            by_path[under.path] = replace(under, silent=(*under.silent, *mask.silent), fill=fill)
            by_path[mask.path] = replace(mask, silent=(), fill=Fill("ones"))
    return list(by_path.values())


def _weight_hooks(module: nn.Module) -> list[Any]:
    kinds = tuple(
        getattr(sys.modules[origin], name)
        for origin, name in (
            ("torch.nn.utils.weight_norm", "WeightNorm"),
            ("torch.nn.utils.spectral_norm", "SpectralNorm"),
            ("torch.nn.utils.prune", "BasePruningMethod"),
        )
        if origin in sys.modules
    )
    found = [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, kinds)]
    return [hook for hook in found if isinstance(vars(module).get(_name(hook)), Tensor)]


def _name(hook: Any) -> str:
    return str(hook._tensor_name if hasattr(hook, "_tensor_name") else hook.name)


def _computed(hook: Any, module: nn.Module) -> Tensor:
    if hasattr(hook, "apply_mask"):
        result: Tensor = hook.apply_mask(module)
    elif hasattr(hook, "n_power_iterations"):
        result = hook.compute_weight(module, do_power_iteration=False)
    else:
        result = hook.compute_weight(module)
    return result
