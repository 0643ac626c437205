"""``HybridDivision``: several kinds of growth at one place, as one edit under one budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ChannelGroup, ModelGraph, trace
from neuroexapt.surgery.checking.structure import structure_of
from neuroexapt.surgery.mutation import Mutation, parse
from neuroexapt.surgery.mutations.add_branch import AddBranch
from neuroexapt.surgery.mutations.expand_bottleneck import ExpandBottleneck
from neuroexapt.surgery.mutations.insert_layer import InsertLayer
from neuroexapt.surgery.mutations.split_units import SplitUnits
from neuroexapt.surgery.mutations.widen import Widen
from neuroexapt.surgery.places.sites import channel_axis, ends_of_chains
from neuroexapt.surgery.plan import Plan
from neuroexapt.surgery.writing.apply import write
from neuroexapt.surgery.writing.undo import UndoLog

PARTS: dict[str, type[Mutation]] = {
    kind.__name__: kind for kind in (Widen, ExpandBottleneck, SplitUnits, InsertLayer, AddBranch)
}
_VERBS = {
    "Widen": "widen",
    "ExpandBottleneck": "widen",
    "SplitUnits": "split units of",
    "InsertLayer": "insert a layer at",
    "AddBranch": "add a branch at",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class HybridDivision(Mutation):
    """Grows one place in more than one way: wider, deeper, by another path, in one edit that is kept or undone whole.

    Each part is planned on the structure that the parts before it leave (a copy on the meta device), so a layer that is
    inserted behind a widened one has the new width. Every part preserves the function, so the whole does.

    Attributes:
        parts: The edits in order; mutations, or their JSON form. Any of ``PARTS``.
        max_parameters: How many parameters all parts may add together; more is refused before anything is allocated.
    """

    parts: tuple[Mutation, ...]
    max_parameters: int

    def __post_init__(self) -> None:
        given: Any = self.parts
        if not isinstance(given, (tuple, list)) or not given or not isinstance(self.max_parameters, int):
            raise ValueError(f"needs parts: one mutation or more and max_parameters: int, found {given!r}")
        parts = tuple(part if isinstance(part, Mutation) else parse(PARTS, part) for part in given)
        if unknown := [type(part).__name__ for part in parts if type(part).__name__ not in PARTS]:
            raise ValueError(f"cannot combine {', '.join(unknown)}; known are {', '.join(PARTS)}")
        object.__setattr__(self, "parts", parts)

    @classmethod
    def candidates(cls, graph: ModelGraph, *, growth: float) -> Iterable[Self]:
        """Wherever a layer can be widened and followed by another one, within ``growth`` of the layers' parameters."""
        for call in ends_of_chains(graph):
            group = next((g for g in graph.groups if g.leaf is channel_axis(call)), None)
            if group is None or group.grows_by_factor or not group.can_widen:
                continue
            wider = graph.size_from(group, max(group.size + 1, round(group.size * growth)))
            parts = (Widen(axis=group.name, to=wider), InsertLayer(site=call.path, kernel_size=1))
            yield cls(parts=parts, max_parameters=_allowance(graph, group, wider))

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Plans part after part, each on the structure that is there by then."""
        plans: list[Plan] = []
        model, inputs = structure_of(graph.model), graph.inputs.to(torch.device("meta"))
        for part in self.parts:
            now = trace(model, inputs) if plans else graph
            plans.append(part.plan(now, generator))
            write(model, (), plans[-1], UndoLog())
        added = sum(p.numel() for p in model.parameters()) - graph.cost.num_parameters
        if added > self.max_parameters:
            raise SurgeryError(
                f"{self.place}: the parts add {added:,} parameters, allowed are {self.max_parameters:,}. "
                "Drop a part, make one smaller, or raise `max_parameters`."
            )
        combined = plans.pop()
        for plan in reversed(plans):
            combined = replace(plan, then=combined)
        return combined

    def describe(self, graph: ModelGraph) -> str:
        """The parts in words, one after the other."""
        first, *others = self.parts
        return " and ".join(
            [first.describe(graph), *(f"{_VERBS[type(part).__name__]} {part.place}" for part in others)]
        )

    @property
    def place(self) -> str:
        """That of the first part."""
        return self.parts[0].place

    def to_json(self) -> dict[str, Any]:
        """Returns the mutation with its parts as JSON-ready dictionaries."""
        parts = [part.to_json() for part in self.parts]
        return {"kind": type(self).__name__, "parts": parts, "max_parameters": self.max_parameters}


def _allowance(graph: ModelGraph, group: ChannelGroup, wider: int) -> int:
    """What the layers that hold the axis gain at most (some hold it in both dimensions), and a square layer."""
    held = sum(p.numel() for path, p in graph.model.named_parameters() if any(m.path == path for m in group.members))
    return round(held * ((wider / group.size) ** 2 - 1)) + wider * (wider + 3)
