"""What an edit would change, as values: nothing here touches a model.

A plan says for every slice of every tensor where it comes from and how new slices are filled. Undoing, moving the
optimizer's state, replaying and counting need no more than this, so they are written once for all mutations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from neuroexapt.graph import NEW, AttributeEdit, Role

FillKind = Literal["normal", "zeros", "ones", "mean"]
Mode = Literal["eval", "train"]
Contents = Callable[[Mapping[str, Tensor]], Tensor]  # of a tensor, from all tensors of the model before the edit

EXACT: frozenset[Mode] = frozenset()
IN_TRAIN: frozenset[Mode] = frozenset({"train"})
DECLARED: frozenset[Mode] = frozenset({"eval", "train"})


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
        rewrite: Gives the new contents instead of fill, silence and factors; the maps still say where the optimizer's
            state comes from. A function, so that an average of the model is rewritten by its own numbers.
        only: Boolean, of the new shape: entries outside it have no source, whatever the maps say (blocks of groups).
    """

    path: str
    maps: tuple[Tensor | None, ...]
    fill: Fill
    silent: tuple[Tensor, ...] = ()
    factors: tuple[Tensor, ...] = ()
    rewrite: Contents | None = None
    only: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ParameterEdit:
    """A parameter in a slot that a standard module keeps empty, such as the bias of ``Conv2d(bias=False)``.

    Attributes:
        module: Path of the module; the slot exists and holds ``None``.
        name: Of the slot.
        shape: Of the parameter.
        contents: Its values.
    """

    module: str
    name: str
    shape: tuple[int, ...]
    contents: Contents


@dataclass(frozen=True, slots=True)
class SlotEdit:
    """A module that leaves its place; its name stays, so that nothing is renumbered.

    Attributes:
        path: Of the module that leaves.
        source: Path of a module inside it that takes its place; ``nn.Identity`` does where it is empty.
    """

    path: str
    source: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class MaskEdit:
    """A mask of ``torch.nn.utils.prune`` on a weight.

    Attributes:
        module: Path of the module.
        name: Of its parameter, without ``_orig``.
        contents: The mask, 1 where a weight stays and 0 elsewhere; ``None`` takes the mask away.
    """

    module: str
    name: str
    contents: Contents | None


@dataclass(frozen=True, slots=True)
class GraftEdit:
    """A piece that is hung on a module of the user: it gets the module's output and what the module was given.

    Attributes:
        site: Path of the module whose output goes through the piece.
        piece: Name of the piece's class in ``neuroexapt.surgery.pieces``.
        arguments: Its keyword arguments.
        seed: Of its random weights.
        reads: Path of the module at which the other end of the piece hangs (``piece.source_end()``), if it has one.
    """

    site: str
    piece: str
    arguments: Mapping[str, Any]
    seed: int
    reads: str = ""


@dataclass(frozen=True, slots=True)
class SettingEdit:
    """A value beside the model that an optimizer or the loss gets.

    Attributes:
        owner: Whose it is.
        name: Of a key of the optimizer's param groups, or of an attribute of the loss module.
        value: The new value.
        module: Only the param groups that hold this module's matrices and kernels, or its vectors where it has no
            others; empty for the whole model. So a group of vectors, made to be spared by weight decay, is spared.
    """

    owner: Literal["optimizer", "loss"]
    name: str
    value: float
    module: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that an edit changes, in the order in which it is written.

    Attributes:
        parameters: New parameters in empty slots.
        tensors: Parameters and buffers that get other contents.
        attributes: Sizes that modules keep.
        freed: Paths of attention modules that become ``FreeAttention``.
        slots: Modules that leave their place.
        masks: Pruning masks that come, change or go.
        grafts: Pieces that are hung on modules.
        settings: Values of the optimizer or the loss; those of all stages are written last.
        changes: Modes in which the function may change, as the mutation declares; in the others it is verified.
        then: The next stage, made for the model as this one leaves it.
    """

    parameters: tuple[ParameterEdit, ...] = ()
    tensors: tuple[TensorEdit, ...] = ()
    attributes: tuple[AttributeEdit, ...] = ()
    freed: tuple[str, ...] = ()
    slots: tuple[SlotEdit, ...] = ()
    masks: tuple[MaskEdit, ...] = ()
    grafts: tuple[GraftEdit, ...] = ()
    settings: tuple[SettingEdit, ...] = ()
    changes: frozenset[Mode] = EXACT
    then: Plan | None = None

    @property
    def stages(self) -> tuple[Plan, ...]:
        """This plan and those after it."""
        return (self, *(self.then.stages if self.then else ()))

    @property
    def declared(self) -> frozenset[Mode]:
        """Modes in which any stage may change the function."""
        return frozenset().union(*(stage.changes for stage in self.stages))

    def sources(self) -> dict[str, SliceSource]:
        """For every tensor with other indices, where its slices come from over all stages."""
        found: dict[str, SliceSource] = {}
        for edit in (edit for stage in self.stages for edit in stage.tensors):
            if any(indices is not None for indices in edit.maps):
                now, earlier = SliceSource(edit.maps, edit.only), found.get(edit.path)
                found[edit.path] = now if earlier is None else earlier.then(now)
        return found


@dataclass(frozen=True, slots=True)
class SliceSource:
    """Where the slices of one tensor came from; part of a patch."""

    maps: tuple[Tensor | None, ...] = field(repr=False)
    only: Tensor | None = field(default=None, repr=False)  # boolean: where the maps hold; by default everywhere

    def then(self, later: SliceSource) -> SliceSource:
        """Follows indices through a later edit to where they came from before both."""
        kept = None if self.only is None else _picked(self.only, later.maps)
        both = kept if later.only is None else later.only if kept is None else kept & later.only
        return SliceSource(_through(self.maps, later.maps), both)

    def new_entries(self, shape: tuple[int, ...]) -> Tensor:
        """Returns a boolean mask ``shape`` of the entries that did not exist before; all copies but the first count."""
        mask = torch.zeros(shape, dtype=torch.bool)
        for dim, indices in enumerate(self.maps):
            if indices is not None:
                view = [1] * len(shape)
                view[dim] = -1
                is_new = _is_new(indices) if self.only is None else indices == NEW
                mask |= is_new.view(view)
        return mask if self.only is None else mask | ~self.only


def _picked(mask: Tensor, maps: tuple[Tensor | None, ...]) -> Tensor:
    """Re-indexes a mask; it is false where there is no source."""
    for dim, indices in enumerate(maps):
        if indices is not None:
            view = [-1 if d == dim else 1 for d in range(mask.dim())]
            mask = mask.index_select(dim, indices.clamp_min(0)) & (indices != NEW).view(view)
    return mask


def _through(earlier: tuple[Tensor | None, ...], later: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Follows indices through two edits to where they came from before both."""
    result: list[Tensor | None] = []
    for first, second in zip(earlier, later, strict=True):
        if first is None or second is None:
            result.append(first if second is None else second)
        else:
            result.append(torch.where(second == NEW, NEW, first[second.clamp_min(0)]))
    return tuple(result)


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
