"""Pure tensor maths of re-indexing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from neuroexapt.graph import NEW, memory_order
from neuroexapt.surgery.plan import Fill, TensorEdit


def gather(
    tensor: Tensor, maps: Sequence[Tensor | None], fill_value: Tensor | None = None, only: Tensor | None = None
) -> Tensor:
    """Re-indexes a tensor; entries without a source come from ``fill_value``, or are zero.

    Args:
        tensor: Any dtype and device; ``[n_0, ..., n_k]``.
        maps: For each dimension the old index of each new one (``NEW`` for none), or ``None`` to leave it.
        fill_value: ``[m_0, ..., m_k]``, the new shape.
        only: Boolean, of the new shape: entries outside it have no source either.

    Returns:
        ``[m_0, ..., m_k]``, in the memory format of ``tensor``; surviving entries are the same bits.
    """
    result = tensor.detach()
    is_new = torch.zeros((1,) * tensor.dim(), dtype=torch.bool, device=tensor.device)
    for dim, indices in enumerate(maps):
        if indices is None:
            continue
        indices = indices.to(tensor.device)
        result = result.index_select(dim, indices.clamp_min(0))
        shape = [1] * tensor.dim()
        shape[dim] = -1
        is_new = is_new | (indices == NEW).view(shape)
    if only is not None:
        is_new = is_new | ~only.to(tensor.device)
    filler = torch.zeros((), dtype=tensor.dtype, device=tensor.device) if fill_value is None else fill_value
    result = torch.where(is_new, filler, result)
    kept = torch.empty_permuted(tuple(result.shape), memory_order(tensor), dtype=tensor.dtype, device=tensor.device)
    return kept.copy_(result)


def edited(tensor: Tensor, edit: TensorEdit) -> Tensor:
    """Returns the new contents of a tensor: re-indexed, new entries filled or silent, all multiplied by the factors."""
    maps, fill = edit.maps, edit.fill
    shape = [n if m is None else len(m) for n, m in zip(tensor.shape, maps, strict=True)]
    new = _values(tensor.detach(), shape, fill)
    for mask in edit.silent:
        new = torch.where(mask.to(new.device), torch.zeros_like(new), new)
    for dim in fill.zero_dims:
        indices = maps[dim]
        if indices is not None:
            view = [1] * tensor.dim()
            view[dim] = -1
            new = torch.where((indices == NEW).view(view).to(new.device), torch.zeros_like(new), new)
    result = gather(tensor, maps, new, edit.only)
    for factor in edit.factors:
        result.mul_(factor.to(device=result.device, dtype=result.dtype))
    return result


def _values(tensor: Tensor, shape: Sequence[int], fill: Fill) -> Tensor:
    if fill.kind == "normal":
        generator = torch.Generator().manual_seed(fill.seed)
        noise = torch.randn(
            shape, generator=generator, dtype=torch.complex128 if tensor.is_complex() else torch.float64
        )
        return (noise * _scale(tensor)).to(dtype=tensor.dtype, device=tensor.device)
    if fill.kind == "mean":
        value = tensor.double().mean() if tensor.is_floating_point() else tensor.flatten()[0]
        return torch.full(tuple(shape), value.item(), dtype=tensor.dtype, device=tensor.device)
    constant = 1.0 if fill.kind == "ones" else 0.0
    return torch.full(tuple(shape), constant, dtype=tensor.dtype, device=tensor.device)


def _scale(tensor: Tensor) -> float:
    """Root mean square of the non-zero entries; a layer that is all zero starts at 1 / sqrt(fan in)."""
    values = tensor.abs().double()
    live = values[values != 0]
    if live.numel():
        return float(live.square().mean().sqrt())
    return 1.0 / math.sqrt(max(tensor[0].numel(), 1)) if tensor.dim() else 1.0
