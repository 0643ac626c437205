"""``Widen``: more units on one axis, silent at first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch

from neuroexapt.errors import InputError, SurgeryError
from neuroexapt.graph import ChannelGroup, ModelGraph
from neuroexapt.surgery.growing import freed_attention, tensor_edits
from neuroexapt.surgery.mutation import Mutation
from neuroexapt.surgery.plan import Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Widen(Mutation):
    """Adds channels, heads, head width or MLP width to a channel group, and to every group that the code ties to it.

    New units get random incoming weights at the layer's own root mean square and zero outgoing weights, so the function
    is unchanged in eval and in train mode and the outgoing weights receive a gradient at once (the zero fan-out of
    Evci et al. 2022, GradMax, table 1 "inverse"; function preservation after Chen et al. 2016, Net2Net, eq. 1).
    Where an operation reads across the axis (layer norm over a residual stream) every unit is copied equally often and
    its outgoing weights are shared unevenly among the copies (Wang et al. 2024, LEMON, section 3.2), so ``to`` must
    then be a multiple of the size (``group.grows_by_factor``).

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
                wanted = max(group.size + 1, round(group.size * growth))
                yield cls(axis=group.name, to=graph.size_from(group, wanted))

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Re-indexes every member of the group; new indices have no source."""
        group = self._group(graph)
        if group.static_reason:
            raise self._refused(group, group.static_reason)
        if group.grows_by_factor and self.to % group.size:
            raise self._refused(
                group,
                f"{group.readers[0]} reads across the axis, so its units can only be copied, all equally often; give a "
                f"multiple of {group.size}",
            )
        resizing = graph.resizing({group.leaf: self.to})
        if resizing.refusal:
            raise self._refused(group, resizing.refusal)
        try:
            edits = tensor_edits(graph, resizing, generator)
        except SurgeryError as error:
            raise self._refused(group, str(error)) from error
        freed = freed_attention(graph, resizing.sizes)
        return Plan(tensors=edits, attributes=resizing.attributes, freed=freed)

    def _refused(self, group: ChannelGroup, reason: str) -> SurgeryError:
        return SurgeryError(
            f"{group.name}: cannot widen from {group.size} to {self.to} units: {reason}. "
            "Choose another size or group; `graph.groups` lists what each admits."
        )

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
