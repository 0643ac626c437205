"""Where each index of a dimension comes from when a leaf space inside it is resized or permuted."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from neuroexapt.graph.space import Space, resolve

NEW = -1  # an index that has no source


def sources(space: Space, edits: Mapping[Space, Tensor]) -> Tensor:
    """Returns, for every index of the edited dimension, the old index that it continues, or ``NEW``.

    Args:
        space: The space of the dimension.
        edits: For each edited leaf the int64 vector ``[new_size]`` of old unit indices, ``NEW`` where a unit is new.

    Returns:
        int64 ``[new dimension size]``.
    """
    node = resolve(space)
    if node in edits:
        return edits[node]
    if node.form == "leaf":
        return torch.arange(node.size)
    if node.form == "sum":
        offset, parts = 0, []
        for part in node.parts:
            inner = sources(part, edits)
            parts.append(torch.where(inner == NEW, NEW, inner + offset))
            offset += resolve(part).size
        return torch.cat(parts)
    result = torch.zeros(1, dtype=torch.int64)
    for part in node.parts:
        inner = sources(part, edits)
        combined = result[:, None] * resolve(part).size + inner[None, :]
        is_new = (result[:, None] == NEW) | (inner[None, :] == NEW)
        result = torch.where(is_new, NEW, combined).flatten()
    return result


def occurrences(space: Space, leaf: Space, offset: int = 0) -> list[slice]:
    """Returns the slices of a dimension that vary with a leaf, in order."""
    node = resolve(space)
    if node is leaf:
        return [slice(offset, offset + node.size)]
    if node.form == "product":
        return [slice(offset, offset + node.size)] if any(occurrences(part, leaf) for part in node.parts) else []
    result = []
    for part in node.parts:
        result += occurrences(part, leaf, offset)
        offset += resolve(part).size
    return result
