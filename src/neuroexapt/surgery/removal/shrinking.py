"""From units that go to edits of tensors: what is kept, on the axis and on all that the code ties to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph, Resizing, Space, region, scaling
from neuroexapt.surgery.plan import Fill, TensorEdit


@dataclass(frozen=True, slots=True, eq=False)
class Removal:
    """Units that stay, and what that entails.

    Attributes:
        resizing: New sizes and the attributes that follow.
        kept: For every axis that shrinks the old indices of the units that stay, int64, in order.
    """

    resizing: Resizing
    kept: Mapping[Space, Tensor]


def removal(graph: ModelGraph, leaf: Space, units: tuple[int, ...]) -> Removal:
    """Says what taking units from an axis entails.

    Args:
        graph: The model.
        leaf: The axis.
        units: What goes; some units stay.

    Raises:
        SurgeryError: The code does not admit the new size, or does not tell which units of a tied axis would go.
    """
    is_kept = torch.ones(leaf.size, dtype=torch.bool)
    is_kept[list(units)] = False
    resizing = graph.resizing({leaf: int(is_kept.sum())})
    if resizing.refusal:
        raise SurgeryError(resizing.refusal)
    return Removal(resizing, kept_units(leaf, is_kept, resizing.sizes))


def kept_units(leaf: Space, is_kept: Tensor, sizes: Mapping[Space, int]) -> dict[Space, Tensor]:
    """Returns what stays of each axis when these units of ``leaf`` do: the same units where a tied axis is as long, the
    corresponding blocks where one is a multiple of the other.

    Raises:
        SurgeryError: A tied axis would grow, or its units do not correspond.
    """
    kept = {leaf: is_kept.nonzero().flatten()}
    for other, size in sizes.items():
        if other is leaf or size == other.size:
            continue
        if size > other.size:
            raise SurgeryError(f"an axis of {other.size} units that the code ties to it would have to grow to {size}")
        mask = _corresponding(is_kept, other.size)
        if mask is None or int(mask.sum()) != size:
            raise SurgeryError(
                f"an axis of {other.size} units that the code ties to it must shrink to {size}, and these units do not "
                "say which: give the units of whole blocks"
            )
        kept[other] = mask.nonzero().flatten()
    return kept


def _corresponding(is_kept: Tensor, size: int) -> Tensor | None:
    if size % len(is_kept) == 0:
        return is_kept.repeat_interleave(size // len(is_kept))
    if len(is_kept) % size:
        return None
    blocks = is_kept.view(size, -1)
    return blocks[:, 0] if bool((blocks == blocks[:, :1]).all()) else None


def shrunk(graph: ModelGraph, found: Removal) -> dict[str, TensorEdit]:
    """Returns the edits of all tensors, by path; scales that the code computes from sizes are taken back.

    Raises:
        SurgeryError: Such a scale changes, and nothing can be multiplied to make up for it.
    """
    factors = _factors(graph, found.resizing)
    edits = {}
    for path in graph.parameters:
        maps = graph.sources(path, found.kept)
        if path in factors or any(m is not None for m in maps):
            edits[path] = TensorEdit(path, maps, Fill("zeros"), factors=tuple(factors.get(path, ())))
    return edits


def _factors(graph: ModelGraph, resizing: Resizing) -> dict[str, list[Tensor]]:
    factors: dict[str, list[Tensor]] = {}
    for scale in resizing.scales:
        operation = graph.tape.operations[scale.index]
        makers = scaling(graph.tape, operation.inputs[0])
        if not makers:
            raise SurgeryError(
                f"{operation} would multiply by {scale.ratio:.3g} times as much, and nothing can undo it"
            )
        for maker in makers:
            mask = region(graph.parameters[maker.parameter].dims, maker.picks, resizing.sizes)
            if mask is None:
                raise SurgeryError(f"{maker.parameter}: the part of it that makes one operand of a product is unclear")
            factor = torch.where(mask, torch.tensor(1 / scale.ratio, dtype=torch.float64), 1.0)
            factors.setdefault(maker.parameter, []).append(factor)
    return factors
