"""Which units of a whole network to prune for a wanted number of parameters: dead ones, then the least important."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ChannelGroup, ModelGraph, Space, resized
from neuroexapt.surgery.mutations.prune_units import PruneUnits
from neuroexapt.surgery.removal.dead import dead_units
from neuroexapt.surgery.removal.importance import importance as importance_of
from neuroexapt.surgery.removal.repair import Repair

Scope = Literal["global", "layer"]

DEAD = -1.0  # below every importance


def select_units(
    graph: ModelGraph,
    *,
    fraction: float | None = None,
    num_parameters: int | None = None,
    importance: str = "magnitude",
    scope: Scope = "global",
    repair: Repair = "none",
    min_units: int = 2,
    max_share: float = 0.9,
) -> tuple[PruneUnits, ...]:
    """Chooses units over the whole network until as many parameters are gone as wanted, or no group may lose more.

    Dead units go first. With ``scope="global"`` the units of all groups are ranked together by their importance over
    the mean of their group; with ``"layer"`` every group loses the same share. Groups to whose size the code ties
    another axis are left alone: name their units yourself.

    Args:
        graph: The model, with an objective if the importance needs gradients.
        fraction: Of the model's parameters to remove, in (0, 1); or
        num_parameters: how many to remove.
        importance: A key of ``IMPORTANCES``.
        scope: How groups compete.
        repair: Of every value, see ``PruneUnits``.
        min_units: No group is left with fewer.
        max_share: Of a group's units that may go, in (0, 1).

    Returns:
        One value for each group that loses units, in the order of the model, to be applied one after the other. Each
        names units of another group, so none changes what the others mean.

    Raises:
        SurgeryError: An argument is out of its range, or the importance cannot be told.
    """
    _check(fraction, num_parameters, scope, min_units, max_share)
    groups = [group for group in graph.groups if group.can_prune and _is_alone(graph, group)]
    scores = []
    for group, score in zip(groups, importance_of(graph, groups, importance), strict=True):
        relative = score / score.mean().clamp_min(torch.finfo(torch.float64).tiny)
        scores.append(torch.where(dead_units(graph, group.leaf), DEAD, relative))
    budget = _Budget(graph)
    wanted = num_parameters if num_parameters is not None else math.ceil((fraction or 0.0) * budget.total)
    most = [min(group.size - min_units, math.floor(max_share * group.size)) for group in groups]
    order = _together(scores) if scope == "global" else _evenly(scores)
    lost = [0] * len(groups)
    for index in order:
        if budget.removed >= wanted:
            break
        if lost[index] < most[index]:
            lost[index] += 1
            budget.shrink(groups[index].leaf)
    return tuple(_values(graph, groups, scores, lost, repair))


class _Budget:
    """How many parameters are gone, as axes shrink one unit at a time; memory: one list of names for each axis."""

    def __init__(self, graph: ModelGraph) -> None:
        buffers = {name for name, _ in graph.model.named_buffers()}
        self._dims = {path: v.dims for path, v in graph.parameters.items() if path not in buffers}
        self._holding: dict[Space, list[str]] = {}
        for group in graph.groups:
            self._holding[group.leaf] = list(dict.fromkeys(m.path for m in group.members if m.path in self._dims))
        self._sizes: dict[Space, int] = {}
        self.total = sum(self._count(path) for path in self._dims)
        self.removed = 0

    def shrink(self, leaf: Space) -> None:
        """One unit goes."""
        before = sum(self._count(path) for path in self._holding[leaf])
        self._sizes[leaf] = self._sizes.get(leaf, leaf.size) - 1
        self.removed += before - sum(self._count(path) for path in self._holding[leaf])

    def _count(self, path: str) -> int:
        return math.prod(resized(space, self._sizes) for space in self._dims[path])


def _check(fraction: float | None, num_parameters: int | None, scope: str, min_units: int, max_share: float) -> None:
    if (fraction is None) == (num_parameters is None):
        raise SurgeryError("select_units: needs either fraction or num_parameters. Give one of them.")
    if (fraction is not None and not 0 < fraction < 1) or (num_parameters is not None and num_parameters < 1):
        raise SurgeryError(
            f"select_units: found fraction={fraction}, num_parameters={num_parameters}; needed a fraction in (0, 1) or "
            "at least one parameter. Correct it."
        )
    if scope not in get_args(Scope) or min_units < 1 or not 0 < max_share < 1:
        raise SurgeryError(
            f"select_units: found scope={scope!r}, min_units={min_units}, max_share={max_share}; needed a scope in "
            f"{get_args(Scope)}, min_units >= 1 and max_share in (0, 1). Correct it."
        )


def _is_alone(graph: ModelGraph, group: ChannelGroup) -> bool:
    """Whether one unit can go without another axis having to shrink."""
    return graph.sizes_below(group, group.size - 1) == {group.leaf: group.size - 1}


def _together(scores: Sequence[Tensor]) -> list[int]:
    """Indices of groups, one for each unit, in the order in which units go."""
    owners = torch.cat([torch.full((len(score),), index) for index, score in enumerate(scores)] or [torch.zeros(0)])
    ranked = torch.cat([*scores, torch.zeros(0, dtype=torch.float64)]).argsort(stable=True)
    return [int(owner) for owner in owners[ranked]]


def _evenly(scores: Sequence[Tensor]) -> list[int]:
    """The same, so that all groups have lost about the same share at any time; dead units are in front."""
    turns = []
    for index, score in enumerate(scores):
        num_dead = int((score == DEAD).sum())
        turns += [(0.0 if k < num_dead else (k + 0.5) / len(score), index) for k in range(len(score))]
    return [index for _, index in sorted(turns)]


def _values(
    graph: ModelGraph, groups: Sequence[ChannelGroup], scores: Sequence[Tensor], lost: Sequence[int], repair: Repair
) -> Iterator[PruneUnits]:
    for group, score, count in zip(groups, scores, lost, strict=True):
        sizes: Mapping[Space, int] = graph.sizes_below(group, group.size - count) if count else {}
        if list(sizes) == [group.leaf]:
            units = score.argsort(stable=True)[: group.size - sizes[group.leaf]]
            yield PruneUnits(axis=group.name, units=tuple(units.tolist()), repair=repair)
