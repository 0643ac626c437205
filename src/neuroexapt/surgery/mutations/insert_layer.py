"""``InsertLayer``: one more layer behind an existing one (serial division), doing nothing at first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch
from torch import nn

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph
from neuroexapt.surgery.mutation import Mutation, draw_seed
from neuroexapt.surgery.places.sites import ends_of_chains, is_map, num_channels, site_at
from neuroexapt.surgery.plan import GraftEdit, Plan
from neuroexapt.surgery.writing.graft import is_piece_path

LayerKind = Literal["dense", "separable"]
Start = Literal["identity", "residual"]

_IDEMPOTENT = ("aten.relu",)


@dataclass(frozen=True, kw_only=True, slots=True)
class InsertLayer(Mutation):
    """Inserts a convolution, a depthwise-separable convolution or a linear layer behind a module.

    It starts as ``x + scale * relu(layer(x))`` with ``scale = 0`` (Bachlechner et al. 2021, ReZero, eq. 2, one scale a
    channel), or behind a ReLU as the identity followed by a ReLU, which changes nothing because ReLU is idempotent
    (Chen et al. 2016, Net2Net, "deeper"). Candidates are residual: all of the signal goes through an identity, which
    training at the network's own rate pulls about.

    Attributes:
        site: Path of the module; it must run once per forward and return one tensor.
        kernel_size: Extent of an inserted convolution, odd; a linear layer has none and needs 1.
        layer: ``dense``, or ``separable`` for a depthwise convolution and a 1x1 convolution (Chollet 2017, Xception).
        start: ``residual``, or ``identity``, which is residual where the site is not a ReLU.
    """

    site: str
    kernel_size: int = 3
    layer: LayerKind = "dense"
    start: Start = "identity"

    def __post_init__(self) -> None:
        size = self.kernel_size
        if not isinstance(self.site, str) or not isinstance(size, int) or size % 2 != 1 or size < 1:
            raise ValueError(f"needs site: str and an odd kernel_size >= 1, found {self.site!r} and {size!r}")
        if self.layer not in get_args(LayerKind):
            raise ValueError(f"needs layer: one of {', '.join(get_args(LayerKind))}, found {self.layer!r}")
        if self.start not in get_args(Start):
            raise ValueError(f"needs start: one of {', '.join(get_args(Start))}, found {self.start!r}")

    @classmethod
    def candidates(cls, graph: ModelGraph, *, growth: float) -> Iterable[Self]:
        """The end of every chain of layer, norm and activation whose output is one plain channel axis.

        Separable convolutions in models that have depthwise ones of their own.
        """
        of_maps: LayerKind = "separable" if _has_depthwise(graph) else "dense"
        for call in ends_of_chains(graph):
            size, layer = (3, of_maps) if is_map(call) else (1, "dense")
            yield cls(site=call.path, kernel_size=size, layer=layer, start="residual")

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Hangs one piece behind the site."""
        call = site_at(graph, self.site)
        is_convolution = is_map(call)
        if not is_convolution and self.layer == "separable":
            raise SurgeryError(
                f"{self.site}: found no feature map, needed one for a separable layer. Use layer='dense', "
                "kernel_size=1."
            )
        if not is_convolution and self.kernel_size != 1:
            raise SurgeryError(
                f"{self.site}: a linear layer has no kernel; found {self.kernel_size}, needed 1. Give kernel_size=1."
            )
        as_identity = self.start == "identity" and call.producer in _IDEMPOTENT
        arguments: dict[str, int | bool] = {"channels": num_channels(call), "as_identity": as_identity}
        if is_convolution:
            arguments["kernel_size"] = self.kernel_size
        on_maps = "InsertedSeparable" if self.layer == "separable" else "InsertedConv"
        piece = on_maps if is_convolution else "InsertedLinear"
        return Plan(grafts=(GraftEdit(self.site, piece, arguments, draw_seed(generator)),))

    def describe(self, graph: ModelGraph) -> str:
        """For example ``insert a 3x3 convolution behind blocks.0.relu``."""
        size, words = self.kernel_size, "separable convolution" if self.layer == "separable" else "convolution"
        layer = f"a {size}x{size} {words}" if is_map(site_at(graph, self.site)) else "a linear layer"
        return f"insert {layer} behind {self.site}"

    @property
    def place(self) -> str:
        """The site."""
        return self.site


def _has_depthwise(graph: ModelGraph) -> bool:
    convolutions = (
        m for path, m in graph.model.named_modules() if isinstance(m, nn.Conv2d) and not is_piece_path(path)
    )
    return any(conv.groups == conv.in_channels > 1 for conv in convolutions)
