"""Pure maths of folding one linear layer into another; weights are ``[out, in, ...]``, computed in 32 bits at least."""

from __future__ import annotations

import torch
from torch import Tensor


def scale_and_shift(
    mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Returns what batch norm does in eval mode, as ``y = scale * x + shift`` for each channel ``[C]``."""
    scale = torch.rsqrt(_wide(variance) + eps)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def scaled_outputs(weight: Tensor, scale: Tensor, groups: int, transposed: bool) -> Tensor:
    """Multiplies every output channel of a layer by its own number.

    Args:
        weight: ``[out, in / groups, ...]``, or ``[in, out / groups, ...]`` where ``transposed``.
        scale: ``[out]``.
        groups: Of a grouped convolution.
        transposed: Whether it is a transposed convolution.
    """
    if not transposed:
        return weight * scale.view(-1, *(1,) * (weight.dim() - 1))
    per_group = weight.view(groups, -1, *weight.shape[1:])
    by_group = scale.view(groups, 1, -1, *(1,) * (weight.dim() - 2))
    return (per_group * by_group).view(weight.shape)


def matrix_behind(weight: Tensor, matrix: Tensor) -> Tensor:
    """Weight of a layer followed by a matrix at every position.

    Args:
        weight: ``[middle, in, ...]``.
        matrix: ``[out, middle]``, with any number of trailing 1s.

    Returns:
        ``[out, in, ...]``.
    """
    product: Tensor = torch.tensordot(_wide(matrix.flatten(1)), _wide(weight), dims=1)
    return product


def matrix_before(weight: Tensor, matrix: Tensor) -> Tensor:
    """Weight of a layer behind a matrix at every position.

    Args:
        weight: ``[out, middle, ...]``.
        matrix: ``[middle, in]``, with any number of trailing 1s.

    Returns:
        ``[out, in, ...]``.
    """
    product: Tensor = torch.tensordot(_wide(weight), _wide(matrix.flatten(1)), dims=([1], [0]))
    return product.movedim(-1, 1)


def separated(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Splits a convolution into a depthwise one and a matrix, as near to it as such a pair comes.

    For every input channel the best approximation of rank 1 (Eckart & Young 1936) of its ``[out, taps]`` slice; the two
    factors share the singular value evenly (Jaderberg et al. 2014, section 2.1, for one input channel a filter).

    Args:
        weight: ``[out, in, ...]``.

    Returns:
        Depthwise ``[in, 1, ...]`` and pointwise ``[out, in, 1, ...]``.
    """
    slices = _wide(weight.detach()).flatten(2).transpose(0, 1)  # [in, out, taps]
    left, values, right = torch.linalg.svd(slices, full_matrices=False)
    root = values[:, :1].sqrt()
    depthwise = (root * right[:, 0]).view(weight.shape[1], 1, *weight.shape[2:])
    pointwise = (root * left[:, :, 0]).transpose(0, 1).reshape(*weight.shape[:2], *(1,) * (weight.dim() - 2))
    return depthwise, pointwise


def regrouped(weight: Tensor, groups: int, wanted: int) -> Tensor:
    """Weight of a convolution with another number of groups: what lies in no block is zero or dropped.

    Args:
        weight: ``[out, in / groups, ...]``.
        groups: Of it.
        wanted: Number of groups that the result has.
    """
    rows, columns = weight.shape[0], weight.shape[1] * groups
    dense = weight.new_zeros(rows, columns, *weight.shape[2:])
    for rows_of, columns_of in _blocks(rows, columns, groups):
        dense[rows_of, columns_of] = weight.detach()[rows_of]
    return torch.cat([dense[rows_of, columns_of] for rows_of, columns_of in _blocks(rows, columns, wanted)])


def _blocks(rows: int, columns: int, groups: int) -> list[tuple[slice, slice]]:
    row, column = rows // groups, columns // groups
    return [(slice(g * row, (g + 1) * row), slice(g * column, (g + 1) * column)) for g in range(groups)]


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_complex() else tensor.to(torch.promote_types(tensor.dtype, torch.float32))
