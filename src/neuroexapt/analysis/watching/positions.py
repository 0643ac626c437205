"""Tensors of a layer as samples x positions x channels, read at chosen positions only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroexapt.analysis.watching.layers import Convolution, WeightLayer, is_linear

CHUNK_BYTES = 2 << 20  # of temporary tensors


def by_position(tensor: Tensor, layer: nn.Module, num_samples: int, units: int) -> Tensor:
    """Views a layer's input or output as ``[N, units, positions]``.

    Args:
        tensor: ``[N, C, *]`` of a convolution, ``[N, *, C]`` of a linear layer; the first dimension may hold several
            rows of each sample.
        layer: Whose tensor it is.
        num_samples: N.
        units: Units among the channels; each has C / units of them in a row (a flattened map).
    """
    if is_linear(layer):
        split = tensor.reshape(num_samples, -1, units, tensor.shape[-1] // units)
        return split.permute(0, 2, 1, 3).flatten(2) if split.shape[1] > 1 else split.squeeze(1)
    merged = tensor.reshape(num_samples, -1, *tensor.shape[1:])
    merged = merged.squeeze(1) if merged.shape[1] == 1 else merged.transpose(1, 2).flatten(2)
    return merged.reshape(num_samples, units, -1)


def at(tensor: Tensor, positions: Tensor) -> Tensor:
    """Returns ``[N, units]`` at one position of each sample of ``[N, units, positions]``."""
    return tensor[torch.arange(len(tensor), device=tensor.device), :, positions.to(tensor.device)]


def chunks(count: int, bytes_each: int) -> Iterator[slice]:
    """Yields ranges of samples whose temporary tensors take ``CHUNK_BYTES`` at most, one sample at least."""
    step = max(1, CHUNK_BYTES // max(bytes_each, 1))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def unit_range(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the smallest and largest value of each unit of ``[N, units, positions]``."""
    return tensor.amin(2).amin(0), tensor.amax(2).amax(0)  # in two steps: much faster than (0, 2) at once


def grid_mean(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Averages ``[N, C, *size]`` over a grid of at most two cells a dimension: ``[N, C * cells]``."""
    if not size or all(n == 1 for n in size):
        return tensor.flatten(1)
    cells = tuple(min(int(n), 2) for n in size)
    if len(cells) == 1:
        return F.adaptive_avg_pool1d(tensor, cells[0]).flatten(1)
    if len(cells) == 2:
        return F.adaptive_avg_pool2d(tensor, cells).flatten(1)
    return F.adaptive_avg_pool3d(tensor, (cells[0], cells[1], cells[2])).flatten(1)


def inputs_at(layer: WeightLayer, inputs: Tensor, output_size: Sequence[int], positions: Tensor) -> Tensor:
    """Returns what the first row of the weight is multiplied with at one output position of each sample.

    Args:
        layer: Linear, or a convolution; of several groups the first is taken.
        inputs: What it got; the first dimension may hold several rows of each sample.
        output_size: Extents of its output map.
        positions: int64 ``[N]``, row-major.

    Returns:
        ``[N, columns of the weight]``.
    """
    count = len(positions)
    if isinstance(layer, nn.Linear):
        return at(by_position(inputs, layer, count, inputs.shape[-1]), positions)
    channels = layer.weight.shape[1]
    rest, is_inside, index = positions.clone(), torch.ones((), dtype=torch.bool), torch.zeros((), dtype=torch.int64)
    starts: list[Tensor] = []
    for extent in reversed(output_size):
        starts.insert(0, rest % extent)
        rest = rest // extent
    for dim, start in enumerate(starts):
        extent = inputs.shape[2 + dim]
        where, is_real = _taps(layer, dim, start, extent)
        shape = (count, *(1 for _ in range(dim)), -1, *(1 for _ in range(len(starts) - dim - 1)))
        index, is_inside = index * extent + where.view(shape), is_inside & is_real.view(shape)
    flat, mask = index.flatten(1).to(inputs.device), is_inside.flatten(1).to(inputs.device)
    maps = inputs[:, :channels].flatten(2)
    if len(inputs) != count:  # rows of one sample: ``rest`` is the one that the position is in
        maps = maps[torch.arange(count, device=inputs.device) * (len(inputs) // count) + rest.to(inputs.device)]
    patches = maps.gather(2, flat[:, None].expand(-1, channels, -1)) * mask[:, None]
    return patches.flatten(1)


def _taps(layer: Convolution, dim: int, start: Tensor, extent: int) -> tuple[Tensor, Tensor]:
    """Where in a dimension of the input the taps for some outputs lie, and whether not on zeros: ``[N, kernel]``."""
    size, dilation, padding = layer.kernel_size[dim], int(layer.dilation[dim]), layer.padding
    named = dilation * (size - 1) // 2 if padding == "same" else 0
    before = named if isinstance(padding, str) else int(padding[dim])
    where = start[:, None] * int(layer.stride[dim]) - before + torch.arange(size) * dilation
    is_inside = (where >= 0) & (where < extent)
    if layer.padding_mode == "zeros":
        return where.clamp(0, extent - 1), is_inside
    if layer.padding_mode == "circular":
        where = where % extent
    elif layer.padding_mode == "reflect":
        where = extent - 1 - (extent - 1 - where.abs()).abs()
    return where.clamp(0, extent - 1), torch.ones_like(is_inside)
