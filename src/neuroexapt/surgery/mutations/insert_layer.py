"""``InsertLayer``: one more layer behind an existing one (serial division), doing nothing at first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph
from neuroexapt.surgery.mutation import Mutation, draw_seed
from neuroexapt.surgery.plan import GraftEdit, Plan
from neuroexapt.surgery.sites import ends_of_chains, is_map, num_channels, site_at

_IDEMPOTENT = ("aten.relu",)


@dataclass(frozen=True, kw_only=True, slots=True)
class InsertLayer(Mutation):
    """Inserts a convolution or a linear layer behind a module.

    Behind a ReLU the layer starts as the identity followed by a ReLU, which changes nothing because ReLU is idempotent
    (Chen et al. 2016, Net2Net, "deeper"); elsewhere as ``x + scale * relu(layer(x))`` with ``scale = 0``
    (Bachlechner et al. 2021, ReZero, eq. 2, one scale a channel).

    Attributes:
        site: Path of the module; it must run once per forward and return one tensor.
        kernel_size: Extent of an inserted convolution, odd; a linear layer has none and needs 1.
    """

    site: str
    kernel_size: int = 3

    def __post_init__(self) -> None:
        size = self.kernel_size
        if not isinstance(self.site, str) or not isinstance(size, int) or size % 2 != 1 or size < 1:
            raise ValueError(f"needs site: str and an odd kernel_size >= 1, found {self.site!r} and {size!r}")

    @classmethod
    def candidates(cls, graph: ModelGraph, *, growth: float) -> Iterable[Self]:
        """The end of every chain of layer, norm and activation whose output is one plain channel axis."""
        for call in ends_of_chains(graph):
            yield cls(site=call.path, kernel_size=3 if is_map(call) else 1)

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Hangs one piece behind the site."""
        call = site_at(graph, self.site)
        is_convolution = is_map(call)
        if not is_convolution and self.kernel_size != 1:
            raise SurgeryError(f"{self.site}: a linear layer has no kernel; found {self.kernel_size}, needed 1.")
        arguments: dict[str, int | bool] = {"channels": num_channels(call), "as_identity": call.producer in _IDEMPOTENT}
        if is_convolution:
            arguments["kernel_size"] = self.kernel_size
        piece = "InsertedConv" if is_convolution else "InsertedLinear"
        return Plan(grafts=(GraftEdit(self.site, piece, arguments, draw_seed(generator)),))

    def describe(self, graph: ModelGraph) -> str:
        """For example ``insert a 3x3 convolution behind blocks.0.relu``."""
        size = self.kernel_size
        layer = f"a {size}x{size} convolution" if is_map(site_at(graph, self.site)) else "a linear layer"
        return f"insert {layer} behind {self.site}"

    @property
    def place(self) -> str:
        """The site."""
        return self.site
