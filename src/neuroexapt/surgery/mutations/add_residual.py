"""``AddResidual``: a skip connection between two points of the executed graph, doing nothing at first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph, ModuleCall
from neuroexapt.surgery.mutation import Mutation, draw_seed
from neuroexapt.surgery.pieces import SkipConnection
from neuroexapt.surgery.places.sites import ends_of_chains, is_map, num_channels, site_at
from neuroexapt.surgery.places.writes import is_written_to
from neuroexapt.surgery.plan import GraftEdit, Plan
from neuroexapt.surgery.writing.graft import pieces_of


@dataclass(frozen=True, kw_only=True, slots=True)
class AddResidual(Mutation):
    """Adds the output of one module to that of a later one, behind a zero scale a channel.

    ``y + scale * adapter(x)`` (He et al. 2016, ResNet, eq. 2, with a scale) and ``scale = 0`` (Bachlechner et al. 2021,
    ReZero, eq. 2). The adapter is nothing where the shapes are equal. It is a 1x1 convolution or a linear map where the
    numbers of channels differ, and averages over windows or repeats the nearest position where the sizes of feature
    maps do; a map is averaged over its positions for an output that has none.

    Attributes:
        source: Path of the module whose output is added; it runs before ``target``, both once per forward.
        target: Path of the module on whose output it is added.
    """

    source: str
    target: str

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or not isinstance(self.target, str) or self.source == self.target:
            raise ValueError(f"needs two different paths, found source {self.source!r} and target {self.target!r}")

    @classmethod
    def candidates(cls, graph: ModelGraph, *, growth: float) -> Iterable[Self]:
        """At most one for every end of a chain of layers: over the chain before it, or else from that chain's end."""
        ends = list(ends_of_chains(graph))
        for index, target in enumerate(ends):
            for source in ends[max(index - 2, 0) : index]:
                if not _refusal(source, target) and not _is_joined(graph, source.path, target.path):
                    yield cls(source=source.path, target=target.path)
                    break

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Hangs one end of a piece on each of the two modules."""
        source, target = site_at(graph, self.source), site_at(graph, self.target)
        order = [call.path for call in graph.calls]
        if order.index(self.source) > order.index(self.target):
            raise SurgeryError(
                f"{self.target}: found it to run before {self.source}, needed it after. Exchange source and target."
            )
        if refusal := _refusal(source, target):
            raise SurgeryError(
                f"{self.target}: cannot add the output of {self.source}: {refusal}. Choose two modules that see the "
                "same positions."
            )
        arguments = {
            "source": self.source,
            "target": self.target,
            "source_channels": num_channels(source),
            "channels": num_channels(target),
            "is_map": is_map(target),
            "has_adapter": num_channels(source) != num_channels(target),
            "resampling": _resampling(source, target),
            "copies": is_written_to(graph, self.source),
        }
        return Plan(
            grafts=(GraftEdit(self.target, "SkipConnection", arguments, draw_seed(generator), reads=self.source),)
        )

    def describe(self, graph: ModelGraph) -> str:
        """For example ``add a skip from stem.0 to blocks.1.bn2``."""
        return f"add a skip from {self.source} to {self.target}"

    @property
    def place(self) -> str:
        """The target."""
        return self.target


def _refusal(source: ModuleCall, target: ModuleCall) -> str:
    """Returns why no resampling makes one output fit the other, or ``""``."""
    if source.shape[0] != target.shape[0]:
        return f"found batches of {source.shape[0]} and {target.shape[0]}, needed equal ones"
    if is_map(source) and (is_map(target) or len(target.shape) == 2):
        return ""
    if is_map(source) or is_map(target) or source.shape[:-1] != target.shape[:-1]:
        return f"found outputs of shapes {source.shape} and {target.shape}, needed equal positions or two feature maps"
    return ""


def _resampling(source: ModuleCall, target: ModuleCall) -> str:
    """Returns how the positions of one output become those of the other."""
    if is_map(source) and not is_map(target):
        return "mean"
    if source.shape[2:] == target.shape[2:] or not is_map(source):
        return ""
    is_smaller = all(before <= after for before, after in zip(source.shape[2:], target.shape[2:], strict=True))
    return "up" if is_smaller else "down"


def _is_joined(graph: ModelGraph, source: str, target: str) -> bool:
    pieces = pieces_of(graph.model.get_submodule(target))
    return any(isinstance(piece, SkipConnection) and piece.wire.source == source for piece in pieces)
