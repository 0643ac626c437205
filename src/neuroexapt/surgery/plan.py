"""What an edit would change, as values: nothing here touches a model.

A plan says for every slice of every tensor where it comes from and how new slices are filled. Undoing, moving the
optimizer's state, replaying and counting need no more than this, so they are written once for all mutations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from neuroexapt.graph import NEW, AttributeEdit, Role

FillKind = Literal["normal", "zeros", "ones", "mean"]


@dataclass(frozen=True, slots=True)
class Fill:
    """How new entries of a tensor are made.

    Attributes:
        kind: ``normal`` draws at the root mean square of the old entries, ``mean`` repeats their mean.
        zero_dims: Along these dimensions new indices are zero whatever ``kind`` says: they read new units.
        seed: Of the generator for ``normal``.
    """

    kind: FillKind
    zero_dims: tuple[int, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class TensorEdit:
    """A parameter or buffer that gets another shape.

    Attributes:
        path: Its name.
        maps: For each dimension the old index of every new index (int64, ``NEW`` where there is none), or ``None``
            where the dimension stays.
        fill: How entries without a source are made.
        silent: Boolean masks that broadcast to the new shape: new entries inside any of them are zero.
        factors: What all entries are multiplied by in the end; broadcast to the new shape.
    """

    path: str
    maps: tuple[Tensor | None, ...]
    fill: Fill
    silent: tuple[Tensor, ...] = ()
    factors: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class GraftEdit:
    """A piece that is hung behind a module of the user.

    Attributes:
        site: Path of the module whose output goes through the piece.
        piece: Name of the piece's class in ``neuroexapt.surgery.pieces``.
        arguments: Its keyword arguments.
        seed: Of its random weights.
    """

    site: str
    piece: str
    arguments: Mapping[str, Any]
    seed: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that an edit changes."""

    tensors: tuple[TensorEdit, ...] = ()
    attributes: tuple[AttributeEdit, ...] = ()
    grafts: tuple[GraftEdit, ...] = ()
    freed: tuple[str, ...] = ()  # paths of attention modules that become ``FreeAttention``


@dataclass(frozen=True, slots=True)
class SliceSource:
    """Where the slices of one tensor came from; part of a patch."""

    maps: tuple[Tensor | None, ...] = field(repr=False)

    def new_entries(self, shape: tuple[int, ...]) -> Tensor:
        """Returns a boolean mask ``shape`` of the entries that did not exist before; all copies but the first count."""
        mask = torch.zeros(shape, dtype=torch.bool)
        for dim, indices in enumerate(self.maps):
            if indices is not None:
                view = [1] * len(shape)
                view[dim] = -1
                mask |= _is_new(indices).view(view)
        return mask


def _is_new(indices: Tensor) -> Tensor:
    """Whether an index has no source, or one that an earlier index has too."""
    first: dict[int, int] = {}
    for position, source in enumerate(indices.tolist()):
        first.setdefault(source, position)
    is_first = torch.tensor([first[source] == position for position, source in enumerate(indices.tolist())])
    return (indices == NEW) | ~is_first


def fill_for(roles: Mapping[int, set[Role]], seed: int) -> Fill:
    """Chooses the fill from what the resized dimensions of a tensor do.

    Zero fan-out, fan-in random at the layer's own root mean square: exact in eval and in train mode.

    Args:
        roles: For each resized dimension, what it does to the axis.
        seed: For random entries.
    """
    every = set().union(*roles.values()) if roles else set()
    zero_dims = tuple(sorted(dim for dim, found in roles.items() if Role.CONSUME in found))
    if Role.PRODUCE in every:
        return Fill("normal", zero_dims, seed)
    if every & {Role.NORM_GAIN, Role.VARIANCE}:
        return Fill("ones", zero_dims)
    if every & {Role.SHIFT, Role.MEAN, Role.CONSUME}:
        return Fill("zeros", zero_dims)
    return Fill("mean", zero_dims)
