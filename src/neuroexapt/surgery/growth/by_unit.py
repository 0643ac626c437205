"""Which unit of an axis each index of a dimension belongs to, and sums over everything else."""

from __future__ import annotations

import torch
from torch import Tensor

from neuroexapt.graph import Space, leaves, resolve
from neuroexapt.surgery.growth.units import positions


def unit_indices(space: Space, leaf: Space) -> Tensor | None:
    """Returns for every index of a dimension its unit of ``leaf``, or -1: int64 ``[size]``.

    ``None`` where an index belongs to two units at once (a product of the axis with itself).
    """
    return None if _holds_two(space, leaf) else positions(space, leaf, {})


def _holds_two(space: Space, leaf: Space) -> bool:
    parts = resolve(space).parts
    is_squared = resolve(space).form == "product" and sum(leaf in leaves(part) for part in parts) > 1
    return is_squared or any(_holds_two(part, leaf) for part in parts)


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
