"""Which indices of a dimension lie in a pick, when some leaves inside it have other sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from neuroexapt.graph.makers import Pick
from neuroexapt.graph.sizes import resized
from neuroexapt.graph.space import Space, leaves, resolve


def region(dims: Sequence[Space], picks: frozenset[Pick], sizes: Mapping[Space, int]) -> Tensor | None:
    """Returns the entries of a parameter that lie in every pick.

    Args:
        dims: Spaces of the parameter's dimensions.
        picks: Ranges in the spaces' own sizes.
        sizes: New sizes of some leaves.

    Returns:
        A boolean tensor that broadcasts to the new shape, or ``None`` where a pick is not found whole or cuts a resized
        leaf. A pick of an axis that the parameter does not have leaves it as it is.
    """
    result = torch.ones((1,) * len(dims), dtype=torch.bool)
    for pick in picks:
        if not set(leaves(pick.space)) & {leaf for space in dims for leaf in leaves(space)}:
            continue  # an axis that the parameter does not have, such as a time step
        holding = [dim for dim, space in enumerate(dims) if _contains(space, pick.space)]
        mask = _mask(dims[holding[0]], pick, sizes) if len(holding) == 1 else None
        if mask is None:
            return None
        shape = [1] * len(dims)
        shape[holding[0]] = -1
        result = result & mask.view(shape)
    return result


def _contains(space: Space, wanted: Space) -> bool:
    node = resolve(space)
    return node is resolve(wanted) or any(_contains(part, wanted) for part in node.parts)


def _mask(space: Space, pick: Pick, sizes: Mapping[Space, int]) -> Tensor | None:
    node, size = resolve(space), resized(space, sizes)
    if node is resolve(pick.space):
        start, stop = (_offset(node, at, sizes) for at in (pick.start, pick.stop))
        if start is None or stop is None:
            return None
        indices = torch.arange(size)
        return (indices >= start) & (indices < stop)
    masks = []
    for part in node.parts:
        inside = _contains(part, pick.space)
        outside = torch.full((resized(part, sizes),), node.form == "product")
        mask = _mask(part, pick, sizes) if inside else outside
        if mask is None:
            return None
        masks.append(mask)
    if node.form == "sum":
        return torch.cat(masks)
    result = torch.ones(1, dtype=torch.bool)
    for mask in masks:
        result = (result[:, None] & mask[None, :]).flatten()
    return result


def _offset(space: Space, offset: int, sizes: Mapping[Space, int]) -> int | None:
    """Returns where an old offset into a space lies after resizing, ``None`` inside something that was resized."""
    node = resolve(space)
    if offset in (0, node.size):
        return resized(node, sizes) if offset else 0
    if resized(node, sizes) == node.size:
        return offset
    if node.form == "sum":
        moved = 0
        for part in node.parts:
            size = resolve(part).size
            if offset <= size:
                inside = _offset(part, offset, sizes)
                return None if inside is None else moved + inside
            offset -= size
            moved += resized(part, sizes)
    if node.form == "product":
        major, *minor = node.parts
        block = math.prod(resolve(part).size for part in minor)
        if offset % block == 0:
            inside = _offset(major, offset // block, sizes)
            return None if inside is None else inside * math.prod(resized(part, sizes) for part in minor)
    return None
