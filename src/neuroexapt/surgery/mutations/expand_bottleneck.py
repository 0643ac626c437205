"""``ExpandBottleneck``: the narrowest axis of a chain or block gets more units."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self, get_args

import torch

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph
from neuroexapt.surgery.growth.bottlenecks import Evidence, bottlenecks
from neuroexapt.surgery.growth.widening import group_at
from neuroexapt.surgery.mutation import Mutation
from neuroexapt.surgery.mutations.widen import Init, Widen
from neuroexapt.surgery.plan import Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpandBottleneck(Mutation):
    """Widens the axis of a block that is its bottleneck; exact, as ``Widen`` is.

    Which axis that is was found by evidence, which the fields keep: on calibration data the effective rank of the
    activations over their number (Roy & Vetterli 2007), else the width beside that of the neighbours.

    Attributes:
        axis: Name of the channel group, the module that produces it, or ``parameter[dim]``.
        to: New number of units.
        block: Path of the module whose children make the axis, ``""`` for the model itself.
        evidence: What was compared within the block: ``effective rank`` or ``relative width``.
        value: What it was for this axis, > 0.
        init: How new units begin, as for ``Widen``.
    """

    axis: str
    to: int
    block: str
    evidence: str = "relative width"
    value: float = 1.0
    init: Init = "zero_fan_out"

    def __post_init__(self) -> None:
        self._widening()
        if not isinstance(self.block, str) or self.evidence not in get_args(Evidence):
            raise ValueError(
                f"needs block: str and evidence: one of {', '.join(get_args(Evidence))}, found {self.block!r} and "
                f"{self.evidence!r}"
            )
        if not isinstance(self.value, (int, float)) or not 0 < self.value < math.inf:
            raise ValueError(f"needs a value > 0, found {self.value!r}")

    @classmethod
    def candidates(cls, graph: ModelGraph, *, growth: float) -> Iterable[Self]:
        """The bottleneck of every block that has one."""
        for found in bottlenecks(graph):
            group = found.group
            to = graph.size_from(group, max(group.size + 1, round(group.size * growth)))
            if found.value > 0:
                yield cls(axis=group.name, to=to, block=found.block, evidence=found.evidence, value=found.value)

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Widens the axis."""
        group = group_at(graph, self.axis)
        if self.block and not any(path.startswith(f"{self.block}.") for path in group.producers):
            raise SurgeryError(
                f"{group.name}: is made by {', '.join(group.producers) or 'no module'}, needed one inside "
                f"{self.block}. Give the block of the axis."
            )
        return self._widening().plan(graph, generator)

    def describe(self, graph: ModelGraph) -> str:
        """For example ``widen up, the bottleneck of the model (relative width 0.5), from 4 to 6``."""
        group = group_at(graph, self.axis)
        block = self.block or "the model"
        evidence = f"{self.evidence} {self.value:.2g}"
        return f"widen {group.name}, the bottleneck of {block} ({evidence}), from {group.size} to {self.to}"

    @property
    def place(self) -> str:
        """The axis."""
        return self.axis

    def _widening(self) -> Widen:
        return Widen(axis=self.axis, to=self.to, init=self.init)
