"""Which unit of an axis each index of a dimension belongs to, and sums over everything else."""

from __future__ import annotations

from collections.abc import Container, Mapping

import torch
from torch import Tensor

from neuroexapt.graph import Space, leaves, resolve

NO_UNIT = -1


def unit_indices(space: Space, leaf: Space) -> Tensor | None:
    """Returns for every index of a dimension its unit of ``leaf``, or ``NO_UNIT``: int64 ``[size]``.

    ``None`` where an index belongs to two units at once (a product of the axis with itself).
    """
    node = resolve(space)
    if node is leaf:
        return torch.arange(node.size)
    if leaf not in leaves(node):
        return torch.full((node.size,), NO_UNIT)
    parts = [unit_indices(part, leaf) for part in node.parts]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    if node.form == "sum":
        return torch.cat(known)
    result = torch.full((1,), NO_UNIT)
    for part in known:
        if bool((result >= 0).any()) and bool((part >= 0).any()):
            return None
        result = torch.maximum(result[:, None], part[None, :]).flatten()
    return result


def sum_by_unit(values: Tensor, dim: int, units: Tensor, size: int) -> Tensor:
    """Sums over everything but the units of one dimension.

    Args:
        values: ``[..., n, ...]`` with n at ``dim``.
        dim: The dimension that holds the units.
        units: int64 ``[n]`` from ``unit_indices``.
        size: Number of units.

    Returns:
        float64 ``[size]``.
    """
    others = [d for d in range(values.dim()) if d != dim % values.dim()]
    totals = values.sum(others, dtype=torch.float64) if others else values.double()
    kept = units >= 0
    return torch.zeros(size, dtype=torch.float64).index_add_(0, units[kept], totals.cpu()[kept])


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
