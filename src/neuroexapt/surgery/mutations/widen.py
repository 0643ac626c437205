"""``Widen``: more units on one axis, silent at first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch

from neuroexapt.errors import InputError, SurgeryError
from neuroexapt.graph import NEW, ChannelGroup, ModelGraph, Role
from neuroexapt.surgery.mutation import Mutation, draw_seed
from neuroexapt.surgery.plan import Plan, TensorEdit, fill_for


@dataclass(frozen=True, kw_only=True, slots=True)
class Widen(Mutation):
    """Adds channels, units or MLP width to a channel group.

    New units get random incoming weights at the layer's own root mean square and zero outgoing weights, so the function
    is unchanged in eval and in train mode and the outgoing weights receive a gradient at once (the zero fan-out of
    Evci et al. 2022, GradMax, table 1 "inverse"; function preservation after Chen et al. 2016, Net2Net, eq. 1).

    Attributes:
        axis: Name of the channel group, the module that produces it, or ``parameter[dim]``.
        to: New number of units.
    """

    axis: str
    to: int

    def __post_init__(self) -> None:
        if not isinstance(self.axis, str) or not isinstance(self.to, int) or isinstance(self.to, bool) or self.to < 1:
            raise ValueError(f"needs axis: str and to: int >= 1, found {self.axis!r} and {self.to!r}")

    @classmethod
    def candidates(cls, graph: ModelGraph, *, growth: float) -> Iterable[Self]:
        """Every group that can be widened."""
        for group in graph.groups:
            if group.can_widen:
                yield cls(axis=group.name, to=max(group.size + 1, round(group.size * growth)))

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Re-indexes every member of the group; new indices have no source."""
        group = self._group(graph)
        refusal = group.static_reason or graph.rehearse({group.leaf: self.to})
        if refusal:
            raise SurgeryError(
                f"{group.name}: cannot widen from {group.size} to {self.to} units: {refusal}. "
                "Choose another group; `graph.groups` lists what each admits."
            )
        sources = torch.cat([torch.arange(group.size), torch.full((self.to - group.size,), NEW)])
        edits = {group.leaf: sources}
        tensors = []
        for path in dict.fromkeys(member.path for member in group.members):
            maps = graph.sources(path, edits)
            roles: dict[int, set[Role]] = {
                d: graph.roles.get((path, d), set()) for d, m in enumerate(maps) if m is not None
            }
            tensors.append(TensorEdit(path, maps, fill_for(roles, draw_seed(generator))))
        return Plan(tensors=tuple(tensors), attributes=graph.attributes_at({group.leaf: self.to}))

    def describe(self, graph: ModelGraph) -> str:
        """For example ``widen stem.0 from 8 to 12``."""
        group = self._group(graph)
        return f"widen {group.name} from {group.size} to {self.to}"

    @property
    def place(self) -> str:
        """The axis."""
        return self.axis

    def _group(self, graph: ModelGraph) -> ChannelGroup:
        try:
            group = graph.group(self.axis)
        except InputError as error:
            raise SurgeryError(str(error)) from error
        if self.to <= group.size:
            raise SurgeryError(
                f"{group.name}: found {group.size} units, needed fewer than {self.to}. Give a larger `to`."
            )
        return group
