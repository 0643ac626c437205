"""How the units of a longer axis begin: which old unit each continues, and what share of what it makes is heard.

The shares of all copies of a unit sum to 1 and those of a pair of opposites to 0, so what reads the axis gets the same
sum as before (Chen et al. 2016, Net2Net, eq. 1). All functions are pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroexapt.graph import NEW, Space, resized, resolve

UNEVEN = 0.25  # shares of copied units differ by up to this fraction, so that training tells copies apart


@dataclass(frozen=True, slots=True, eq=False)
class Opposites:
    """Units that repeat others.

    Attributes:
        units: int64 ``[pairs]``, indices of new units.
        origins: int64 ``[pairs]``, what each of them repeats.
    """

    units: Tensor
    origins: Tensor

    def of(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the indices of a dimension that repeat others, and which, from the unit of every index."""
        return indices_of(ids, self.units.tolist()), indices_of(ids, self.origins.tolist())


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """The units of a longer axis.

    Attributes:
        sources: int64 ``[new size]``, the old unit that each continues or ``NEW``.
        shares: float64 ``[new size]``, what everything that reads a unit is multiplied by.
        twins: New units that repeat others.
    """

    sources: Tensor
    shares: Tensor
    twins: Opposites | None = None


def random_copies(size: int, to: int, generator: torch.Generator) -> Units:
    """Copies units chosen at random, as evenly as it goes, and divides each unevenly among its copies (Net2Wider)."""
    rounds = -(-(to - size) // size)
    picked = torch.cat([torch.randperm(size, generator=generator) for _ in range(rounds)])[: to - size]
    sources = torch.cat([torch.arange(size), picked])
    counts = torch.bincount(sources, minlength=size).double()
    noise = torch.rand(to, generator=generator, dtype=torch.float64) - 0.5
    mean = torch.zeros(size, dtype=torch.float64).index_add_(0, sources, noise) / counts
    return Units(sources, (1 + 2 * UNEVEN * (noise - mean[sources])) / counts[sources])


def halves(size: int, units: Sequence[int], shares: Tensor) -> Units:
    """Copies chosen units once; each keeps its share and its copy gets the rest.

    Args:
        size: Number of units before.
        units: Distinct indices.
        shares: float64 ``[len(units)]``, what the original keeps, between 0 and 1.
    """
    chosen = torch.tensor(units, dtype=torch.int64)
    kept = torch.ones(size, dtype=torch.float64).index_copy(0, chosen, shares)
    return Units(torch.cat([torch.arange(size), chosen]), torch.cat([kept, 1 - shares]))


def opposites(size: int, to: int) -> Units:
    """New units two by two with equal fan-in V, V and opposite fan-out Z, -Z.

    Args:
        size: Number of units before.
        to: Number after; ``to - size`` is even.
    """
    first = torch.arange(size, to, 2)
    shares = torch.ones(to, dtype=torch.float64)
    shares[first + 1] = -1
    return Units(torch.cat([torch.arange(size), torch.full((to - size,), NEW)]), shares, Opposites(first + 1, first))


def indices_of(ids: Tensor, units: Iterable[int]) -> Tensor:
    """Returns the indices of a dimension that belong to these units, unit by unit."""
    return torch.cat([torch.nonzero(ids == unit).flatten() for unit in units])


def positions(space: Space, leaf: Space, sizes: Mapping[Space, int]) -> Tensor:
    """Returns int64 ``[new size of the dimension]``: which unit of ``leaf`` each index belongs to, -1 where to none.

    Indices of two units, each in order, correspond to each other.
    """
    node = resolve(space)
    if node is leaf:
        return torch.arange(resized(node, sizes))
    if not node.parts:
        return torch.full((resized(node, sizes),), -1)
    parts = [positions(part, leaf, sizes) for part in node.parts]
    if node.form == "sum":
        return torch.cat(parts)
    result = torch.full((1,), -1)
    for part in parts:
        result = torch.maximum(result[:, None], part[None, :]).flatten()
    return result
