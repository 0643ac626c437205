"""``AddAttention``: a channel gate that starts open, or self-attention over positions that starts silent."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import torch

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph, ModuleCall
from neuroexapt.surgery.mutation import Mutation, draw_seed
from neuroexapt.surgery.places.sites import ends_of_chains, is_map, num_channels, site_at
from neuroexapt.surgery.plan import GraftEdit, Plan

Variant = Literal["squeeze_excite", "eca", "self"]
Pieces = tuple[str, dict[str, Any]]

MIN_HIDDEN = 8  # units of a squeeze-and-excite gate; with fewer, all may be dead behind their ReLU
_MASKS = ("masked_fill", "tril", "triu")


@dataclass(frozen=True, kw_only=True, slots=True)
class AddAttention(Mutation):
    """Hangs attention behind a module; the function is unchanged at first.

    ``squeeze_excite``: ``x * 2 sigmoid(W2 relu(W1 mean(x)))``, ``W2 = 0`` (Hu et al. 2018, eq. 2-4). On ``[N, C]``
    there is nothing to average: a gate of the features by themselves (Miech et al. 2017, context gating).
    ``eca``: ``x * 2 sigmoid(conv(mean(x)))``, ``conv = 0`` over the channels (Wang et al. 2020, eq. 7). It reads their
    order, so this axis can be neither widened nor pruned afterwards; it is never proposed, only asked for.
    ``self``: ``x + W_o attention(x)``, ``W_o = 0``, over positions (Wang et al. 2018, non-local networks, eq. 6).

    Attributes:
        site: Path of the module; it must run once per forward and return one tensor.
        variant: One of the three above.
        reduction: ``squeeze_excite``: channels over hidden units, of which there are at least ``MIN_HIDDEN``.
        kernel_size: ``eca``: channels that decide about one, odd; 0 takes the paper's size for this many channels.
        num_heads: ``self``: attention heads.
        width: ``self``: of queries, keys and values, all heads together; 0 takes half the channels.
        is_causal: ``self``: a position sees itself and those before it only.
    """

    site: str
    variant: Variant = "squeeze_excite"
    reduction: int = 16
    kernel_size: int = 0
    num_heads: int = 1
    width: int = 0
    is_causal: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.site, str) or self.variant not in get_args(Variant):
            raise ValueError(f"needs site: str and a variant of {get_args(Variant)}, found {self.variant!r}")
        for name, least in (("reduction", 1), ("kernel_size", 0), ("num_heads", 1), ("width", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"needs {name}: int >= {least}, found {value!r}")
        if self.kernel_size and self.kernel_size % 2 == 0:
            raise ValueError(f"needs an odd kernel_size, or 0 for the paper's, found {self.kernel_size}")
        if self.width % self.num_heads:
            raise ValueError(f"needs a width that {self.num_heads} heads divide, found {self.width}")
        if not isinstance(self.is_causal, bool):
            raise ValueError(f"needs is_causal: bool, found {self.is_causal!r}")

    @classmethod
    def candidates(cls, graph: ModelGraph, *, growth: float) -> Iterable[Self]:
        """At the end of every chain: squeeze-and-excite for feature maps, self-attention for tokens.

        Self-attention is causal unless the model has attention that hides no position: it must not see what the model
        may not see.
        """
        is_causal = not _is_bidirectional(graph)
        for call in ends_of_chains(graph):
            if is_map(call):
                yield cls(site=call.path, variant="squeeze_excite")
            elif len(call.shape) == 3:
                yield cls(site=call.path, variant="self", is_causal=is_causal)

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Hangs one piece behind the site."""
        call = site_at(graph, self.site)
        if len(call.shape) == 2 and self.variant != "squeeze_excite":
            raise SurgeryError(
                f"{self.site}: found an output {list(call.shape)} without positions, needed [N, C, H, W] or [N, L, C] "
                f"for {self.variant!r}. Use variant='squeeze_excite'."
            )
        if self.variant == "self":
            piece, arguments = self._over_positions(call)
        else:
            piece, arguments = self._over_channels(call)
        return Plan(grafts=(GraftEdit(self.site, piece, arguments, draw_seed(generator)),))

    def _over_channels(self, call: ModuleCall) -> Pieces:
        channels = num_channels(call)
        positions = [dim for dim in range(1, len(call.shape)) if dim != (1 if is_map(call) else len(call.shape) - 1)]
        if self.variant == "eca":
            return "LocalChannelGate", {"kernel_size": self.kernel_size or _eca_size(channels), "positions": positions}
        hidden = max(channels // self.reduction, MIN_HIDDEN)
        return "ChannelGate", {"channels": channels, "hidden": hidden, "positions": positions}

    def _over_positions(self, call: ModuleCall) -> Pieces:
        channels, heads = num_channels(call), self.num_heads
        width = self.width or max(channels // 2 // heads, 1) * heads
        shape = {"channels": channels, "width": width, "num_heads": heads}
        return "PositionAttention", {**shape, "is_map": is_map(call), "is_causal": self.is_causal}

    def describe(self, graph: ModelGraph) -> str:
        """For example ``add squeeze-and-excite attention behind stem.2``."""
        names = {"squeeze_excite": "squeeze-and-excite", "eca": "efficient channel", "self": "self-"}
        name = names[self.variant]
        return f"add {'causal ' * self.is_causal}{name}{'' if name.endswith('-') else ' '}attention behind {self.site}"

    @property
    def place(self) -> str:
        """The site."""
        return self.site


def _eca_size(channels: int) -> int:
    """The odd number next to ``(log2 C + 1) / 2`` (Wang et al. 2020, eq. 12)."""
    size = int((math.log2(channels) + 1) / 2)
    return size if size % 2 else size + 1


def _is_bidirectional(graph: ModelGraph) -> bool:
    """Whether the forward has attention, and nothing in it hides positions from others."""
    has_attention = False
    for operation in graph.tape:
        given = operation.arguments
        has_mask = any(given.get(name) is not None for name in ("attn_mask", "attn_bias"))
        if operation.name in _MASKS or given.get("is_causal") or has_mask:
            return False
        has_attention |= "scaled_dot_product" in operation.name or "softmax" in operation.name
    return has_attention
