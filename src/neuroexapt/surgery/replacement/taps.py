"""Where the taps of one convolution lie in another: pure arithmetic of kernel size, dilation and padding.

A tap ``i`` of a kernel reads position ``i * dilation - padding`` from where its output lies. A kernel of another extent
whose padding is larger by half of what its reach is larger gives as many outputs and has a tap at every position of the
old one, or has not: then the exchange is not exact. Transposed convolutions write where others read; the rest is equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuroexapt.graph import NEW

Convolution = nn.modules.conv._ConvNd
Extent = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """How a new kernel lies over an old one.

    Attributes:
        maps: For each dimension the old tap of every new one (``NEW`` for none).
        shifts: For each dimension how much larger the padding on either side is.
        is_exact: Whether every old tap has its place.
    """

    maps: tuple[Tensor, ...]
    shifts: Extent
    is_exact: bool


def place(old: Sequence[tuple[int, int]], new: Sequence[tuple[int, int]]) -> Placement | str:
    """Centres one kernel on another.

    Args:
        old: Kernel size and dilation, for each dimension.
        new: The same of the new kernel.

    Returns:
        How it lies, or why the two have no common centre.
    """
    maps, shifts, is_exact = [], [], True
    for (old_size, old_step), (size, step) in zip(old, new, strict=True):
        twice = step * (size - 1) - old_step * (old_size - 1)
        if twice % 2:
            reach, old_reach = step * (size - 1) + 1, old_step * (old_size - 1) + 1
            return f"a kernel that reaches over {reach} positions has no common centre with one over {old_reach}"
        shift = twice // 2
        found = {i * old_step + shift: i for i in range(old_size)}
        sources = [found.get(j * step, NEW) for j in range(size)]
        is_exact = is_exact and len(set(sources) - {NEW}) == old_size
        maps.append(torch.tensor(sources, dtype=torch.int64))
        shifts.append(shift)
    return Placement(tuple(maps), tuple(shifts), is_exact)


def merged_groups(weight: Tensor, groups: int, fewer: int, kernel: Extent) -> tuple[Tensor | None, Tensor | None]:
    """Lays the blocks of a grouped weight out in fewer, larger blocks.

    Args:
        weight: ``[rows, columns of one group, ...]``.
        groups: Of it.
        fewer: Groups that it shall have; divides ``groups``.
        kernel: Taps that it shall have.

    Returns:
        The old column of every new one, and a mask ``[rows, new columns, *kernel]`` of the blocks; ``None`` where the
        number of groups stays.
    """
    if fewer == groups:
        return None, None
    rows, columns = weight.shape[:2]
    merged = groups // fewer
    block_of_row = torch.arange(rows) // (rows // groups) % merged
    block_of_column = torch.arange(merged).repeat_interleave(columns)
    blocks = block_of_row[:, None] == block_of_column[None, :]
    shape = (rows, merged * columns, *kernel)
    return torch.arange(columns).repeat(merged), blocks.view(*shape[:2], *(1,) * len(kernel)).expand(shape)


def padding_of(module: Convolution) -> Extent:
    """Returns how much a convolution pads before each dimension, whatever form it keeps that in."""
    if not isinstance(module.padding, str):
        return tuple(module.padding)
    if module.padding == "valid":
        return (0,) * len(module.kernel_size)
    return tuple(step * (size - 1) // 2 for size, step in zip(module.kernel_size, module.dilation, strict=True))


def is_pointwise(module: Convolution) -> bool:
    """Whether it is a matrix at every position: 1x1, dense, no stride, no padding."""
    is_single = all(size == 1 for size in (*module.kernel_size, *module.stride))
    return is_single and not any(padding_of(module)) and module.groups == 1 and not module.transposed
