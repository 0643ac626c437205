"""The units of a layer with mean 0 and variance 1, made in blocks so that the workspace does not grow with width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_UNITS = 256  # at a time
_NUMBERS = 1 << 16  # at a time: with more rows, fewer units
_STILL = 1e-6  # a variance below this share of that of all rows is rounding
_ROUNDING = 1e-6  # a standard deviation below this share of the mean is rounding, not signal


@dataclass(frozen=True, slots=True)
class Correlations:
    """One block of the correlation matrix, above its diagonal of blocks or on it.

    Attributes:
        i: Its units.
        j: And those that they are correlated with.
        left: float32 ``[n, len(i)]``: the standardised rows.
        right: float32 ``[n, len(j)]``.
        r: float32 ``[len(i), len(j)]``: Pearson's r; 0 for a unit with itself. Free to be written to.
    """

    i: slice
    j: slice
    left: Tensor
    right: Tensor
    r: Tensor

    @property
    def weight(self) -> int:
        """How often its pairs occur in the whole matrix."""
        return 1 if self.i == self.j else 2


@dataclass(frozen=True, slots=True)
class StandardRows:
    """The units that vary within the rows; constant and dead ones are left out.

    Attributes:
        features: ``[n, width]``, as they are.
        units: int64 ``[d]``: which of them vary.
        mean: ``[1, d]``.
        deviation: ``[1, d]``, with divisor n.
    """

    features: Tensor
    units: Tensor
    mean: Tensor
    deviation: Tensor

    @staticmethod
    def of(features: Tensor) -> StandardRows:
        """Finds what varies; holds four numbers a unit."""
        deviation, mean = torch.std_mean(features, 0, correction=0, keepdim=True)
        units = (deviation > _ROUNDING * mean.abs())[0].nonzero()[:, 0]
        return StandardRows(features, units, mean[:, units], deviation[:, units])

    @property
    def num_rows(self) -> int:
        """n."""
        return len(self.features)

    @property
    def num_units(self) -> int:
        """d."""
        return len(self.units)

    def block(self, units: slice) -> Tensor:
        """Returns the standardised rows of some units: float32 ``[n, len(units)]``, new memory."""
        return self.scaled(units, self.mean[:, units], 1 / self.deviation[:, units])

    def scaled(self, units: slice, mean: Tensor, factor: Tensor) -> Tensor:
        """Returns the rows of some units less a mean, times a factor: float32 ``[n, len(units)]``, new memory."""
        if self.num_units == self.features.shape[1]:
            return (self.features[:, units] - mean).mul_(factor)
        return self.features.index_select(1, self.units[units]).sub_(mean).mul_(factor)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yields the standardised rows of all units, ``block_size`` at a time."""
        for units in self.slices():
            yield units, self.block(units)

    def slices(self) -> Iterator[slice]:
        """Yields all units, ``block_size`` at a time."""
        size = block_size(self.num_rows, self.num_units)
        for start in range(0, self.num_units, size):
            yield slice(start, min(start + size, self.num_units))

    def correlations(self) -> Iterator[Correlations]:
        """Yields the correlation matrix in blocks, each pair of blocks once: ``n d^2`` multiplications."""
        size = block_size(self.num_rows, self.num_units)
        for i, left in self.blocks():
            for start in range(i.start, self.num_units, size):
                j = slice(start, min(start + size, self.num_units))
                right = left if i == j else self.block(j)
                r = (left.T @ right).div_(self.num_rows).clamp_(-1, 1)
                if i == j:
                    r.fill_diagonal_(0)
                yield Correlations(i, j, left, right, r)

    def gram(self) -> Tensor:
        """Returns the inner products of the rows over d: float32 ``[n, n]``, trace n; exact whatever the width."""
        gram = self.features.new_zeros(self.num_rows, self.num_rows)
        for _, block in self.blocks():
            gram.addmm_(block, block.T)
        return gram.div_(self.num_units)


def without_groups(z: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns what standardises the rows that stay when one of some interleaved groups is left out.

    Args:
        z: Standardised rows ``[n, b]``.
        count: Groups.

    Returns:
        Mean and one over the standard deviation of each unit without each group, float32 ``[count, b]``; the latter is
        0 for a unit that then varies no more.
    """
    n, b = z.shape
    sums = z.new_zeros(2, count, b)
    for start in range(0, n, count):
        part = z[start : start + count]
        sums[0, : len(part)] += part
        sums[1, : len(part)].addcmul_(part, part)
    of_all = sums.sum(1, keepdim=True)
    kept = n - torch.bincount(torch.arange(n) % count).double()[:, None]
    mean, square = ((of_all - sums).double()).div_(kept)
    variance = square.addcmul_(mean, mean, value=-1)
    inverse = torch.where(variance > _STILL, variance.clamp_(min=_STILL).rsqrt(), 0.0)
    return mean.float(), inverse.float()


def again(z: Tensor, kept: Tensor) -> Tensor:
    """Returns some of the rows, standardised anew; a unit that varies no more is 0."""
    rows = z.index_select(0, kept)
    rows.sub_(rows.mean(0))
    deviation = rows.square().mean(0).sqrt_()  # a sixth of the time of ``torch.std`` along rows
    return rows.div_(deviation.clamp_(min=_ROUNDING))


def block_size(num_rows: int, width: int) -> int:
    """Returns how many units are in a block."""
    return min(width, _UNITS, max(_NUMBERS // num_rows, 1))


def block_bytes(num_rows: int, width: int) -> int:
    """Bytes of ``StandardRows`` and one of its blocks, with the one before it that is still there."""
    return 4 * 2 * num_rows * block_size(num_rows, width) + 34 * width
