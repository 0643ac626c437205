"""``PruneUnits``: chosen units of one axis go, with every slice that belongs to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self, get_args

import torch

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ChannelGroup, ModelGraph
from neuroexapt.surgery.growth.growing import freed_attention
from neuroexapt.surgery.growth.widening import group_at
from neuroexapt.surgery.mutation import Mutation
from neuroexapt.surgery.plan import DECLARED, EXACT, Plan
from neuroexapt.surgery.removal.dead import dead_units
from neuroexapt.surgery.removal.importance import importance
from neuroexapt.surgery.removal.repair import Repair, repaired
from neuroexapt.surgery.removal.shrinking import kept_units, removal, shrunk

SHARE = 0.2  # of a group's units that a candidate takes


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneUnits(Mutation):
    """Removes units from a channel group, and from every group that the code ties to it.

    All slices of all parameters, their optimizer state, and the sizes that modules keep go with them (structured
    pruning; Li et al. 2017, Pruning Filters; groups as in Fang et al. 2023, DepGraph). Where all units are dead (every
    weight that reads them is zero, or they are zero by the weights that make them) the function is preserved exactly
    and verified; otherwise the change is declared, and ``patch.output_change`` says how large it is.

    Attributes:
        axis: Name of the channel group, the module that produces it, or ``parameter[dim]``.
        units: Which go, counted from 0; at least one stays.
        repair: What the consumers do about it, fitted on calibration data: ``none``; ``mean``, they absorb the mean of
            what they lose in their bias (or the running mean of the batch norm behind them); ``least_squares``, also
            what the units that stay can tell of it.
    """

    axis: str
    units: tuple[int, ...]
    repair: Repair = "none"

    def __post_init__(self) -> None:
        units = tuple(self.units) if isinstance(self.units, (tuple, list)) else ()
        if not units or any(not isinstance(unit, int) or isinstance(unit, bool) or unit < 0 for unit in units):
            raise ValueError(f"needs units: a sequence of at least one int >= 0, found {self.units!r}")
        if len(set(units)) < len(units) or not isinstance(self.axis, str) or self.repair not in get_args(Repair):
            raise ValueError(
                f"needs axis: str, different units and repair in {get_args(Repair)}, "
                f"found {self.axis!r}, {units} and {self.repair!r}"
            )
        object.__setattr__(self, "units", tuple(sorted(units)))

    @classmethod
    def candidates(cls, graph: ModelGraph, *, growth: float) -> Iterable[Self]:
        """For every group its dead units; where there are none, its least units by magnitude, with repair."""
        groups = [group for group in graph.groups if group.can_prune]
        for group, scores in zip(groups, importance(graph, groups, "magnitude"), strict=True):
            dead = dead_units(graph, group.leaf)
            num_dead = min(int(dead.sum()), group.size - 1)
            wanted = group.size - (num_dead or max(1, round(SHARE * group.size)))
            sizes = graph.sizes_below(group, wanted)
            if not sizes or min(sizes.values()) < 2:  # code cannot tell one unit from a broadcast axis
                continue
            order = torch.where(dead, -1.0, scores).argsort(stable=True)
            is_kept = torch.ones(group.size, dtype=torch.bool)
            is_kept[order[: group.size - sizes[group.leaf]]] = False
            try:
                kept_units(group.leaf, is_kept, sizes)
            except SurgeryError:
                continue  # a tied axis does not correspond; whoever knows its blocks can ask for them
            units = tuple((~is_kept).nonzero().flatten().tolist())
            yield cls(axis=group.name, units=units, repair="none" if dead[list(units)].all() else "least_squares")

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Keeps the indices of all other units on every member; repairs the consumers."""
        group = self._group(graph)
        try:
            found = removal(graph, group.leaf, self.units)
            edits = shrunk(graph, found)
        except SurgeryError as error:
            raise self._refused(group, str(error)) from error
        is_exact = all(bool(dead_units(graph, leaf)[_gone(leaf.size, kept)].all()) for leaf, kept in found.kept.items())
        tensors, parameters = (
            (list(edits.values()), []) if self.repair == "none" else repaired(graph, edits, self.repair)
        )
        return Plan(
            tensors=tuple(tensors),
            attributes=found.resizing.attributes,
            freed=freed_attention(graph, found.resizing.sizes),
            parameters=tuple(parameters),
            changes=EXACT if is_exact else DECLARED,
        )

    def describe(self, graph: ModelGraph) -> str:
        """For example ``prune 3 of 16 units of blocks.0.conv1, repair least_squares``."""
        group = self._group(graph)
        repair = "" if self.repair == "none" else f", repair {self.repair}"
        return f"prune {len(self.units)} of {group.size} units of {group.name}{repair}"

    @property
    def place(self) -> str:
        """The axis."""
        return self.axis

    def _group(self, graph: ModelGraph) -> ChannelGroup:
        group = group_at(graph, self.axis)
        if group.pin_reason:
            raise self._refused(group, group.pin_reason)
        if self.units[-1] >= group.size:
            raise self._refused(group, f"found unit {self.units[-1]}, needed units from 0 to {group.size - 1}")
        if len(self.units) >= group.size:
            raise self._refused(group, "no unit would be left; to take a whole layer away there is RemoveLayer")
        return group

    def _refused(self, group: ChannelGroup, reason: str) -> SurgeryError:
        return SurgeryError(
            f"{group.name}: cannot prune {len(self.units)} of {group.size} units: {reason}. "
            "Choose other units or another group; `graph.groups` lists what each admits."
        )


def _gone(size: int, kept: torch.Tensor) -> torch.Tensor:
    is_gone = torch.ones(size, dtype=torch.bool)
    is_gone[kept] = False
    return is_gone
