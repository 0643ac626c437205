"""Tensors of a junction as rows: a few positions of each sample, the same for all that is multiplied there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuroexapt.analysis.watching.layers import WeightLayer, is_linear
from neuroexapt.analysis.watching.positions import inputs_at


def rows_of(tensor: Tensor, positions: Tensor, *, channels_last: bool) -> Tensor:
    """Returns ``[N, q, C]`` of ``[N, C, *]`` or ``[N, *, C]`` at positions ``[N, q]``, row-major; a copy."""
    if channels_last:
        flat = tensor.reshape(len(tensor), -1, tensor.shape[-1])
        return flat.gather(1, positions[:, :, None].expand(-1, -1, flat.shape[2]))
    flat = tensor.reshape(*tensor.shape[:2], -1)
    return flat.gather(2, positions[:, None].expand(-1, flat.shape[1], -1)).transpose(1, 2)


def num_positions(tensor: Tensor, *, channels_last: bool) -> int:
    """Returns how many positions a sample has."""
    return tensor[0].numel() // max(tensor.shape[-1 if channels_last else 1], 1)


def columns_of(layer: WeightLayer, inputs: Tensor, output: Tensor, positions: Tensor) -> Tensor | None:
    """Returns ``[N, q, columns]``: what the rows of a layer's weight are multiplied with at positions of its output.

    ``None`` where the layer pads with something else than zeros or has several groups.
    """
    if getattr(layer, "groups", 1) != 1 or len(inputs) != len(output):
        return None
    size = () if is_linear(layer) else output.shape[2:]
    found = [inputs_at(layer, inputs, size, each) for each in positions.cpu().T]
    kept = [each for each in found if each is not None]
    return torch.stack(kept, 1) if len(kept) == len(found) and kept else None


def placed_at(layer: WeightLayer, gradient: Tensor, size: torch.Size, positions: Tensor) -> Tensor:
    """Returns for positions of a layer's input the gradients of the outputs that they enter, by tap.

    The gradient at a unit's position is this vector times the unit's outgoing weights.

    Args:
        layer: Linear, or a convolution with zero padding.
        gradient: With respect to its output.
        size: Extents of its input map.
        positions: int64 ``[N, q]`` there, row-major.

    Returns:
        ``[N, q, out * taps]``, in the order of the weight's entries for one input channel.
    """
    if isinstance(layer, nn.Linear):
        return rows_of(gradient, positions, channels_last=True)
    at: list[Tensor] = []
    rest = positions
    for extent in reversed(size):
        at.insert(0, rest % extent)
        rest = rest // extent
    taps = torch.cartesian_prod(*(torch.arange(int(k)) for k in layer.kernel_size)).view(-1, len(at))
    found = []
    for tap in taps.tolist():
        index, is_inside = torch.zeros_like(positions), torch.ones_like(positions, dtype=torch.bool)
        for dim, where in enumerate(at):
            reached = where + int(layer.padding[dim]) - tap[dim] * int(layer.dilation[dim])
            stride, extent = int(layer.stride[dim]), gradient.shape[2 + dim]
            is_inside = is_inside & (reached >= 0) & (reached % stride == 0) & (reached // stride < extent)
            index = index * extent + (reached // stride).clamp(0, extent - 1)
        found.append(rows_of(gradient, index, channels_last=False) * is_inside[:, :, None])
    return torch.stack(found, 3).flatten(2)
