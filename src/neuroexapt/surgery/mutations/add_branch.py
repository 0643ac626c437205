"""``AddBranch``: another path beside a trained layer (parallel division), doing nothing at first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import torch
from torch import nn

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph, ModuleCall
from neuroexapt.surgery.mutation import Mutation, draw_seed
from neuroexapt.surgery.pieces import ConvBranch, LowRankBranch
from neuroexapt.surgery.places.sites import is_map, num_channels, site_at, sites
from neuroexapt.surgery.plan import GraftEdit, Plan
from neuroexapt.surgery.writing.graft import has_piece, own_class

BranchKind = Literal["1x1", "3x3", "5x5", "depthwise", "dilated", "low_rank"]

_EXTENT = {"1x1": 1, "3x3": 3, "5x5": 5, "depthwise": 3, "dilated": 3}
_WORDS = {"depthwise": "depthwise-separable", "dilated": "dilated 3x3", "low_rank": "low-rank"}
_DILATED = 2  # times the layer's own dilation


@dataclass(frozen=True, kw_only=True, slots=True)
class AddBranch(Mutation):
    """Keeps a trained layer and adds a branch from the layer's input to its output, behind a zero scale a channel.

    A convolution gets a convolution with its own stride, groups and dilation, and padded so that it gives the same
    positions, centred on the same inputs (Ding et al. 2021, RepVGG, eq. 1-2, without the norms); a linear layer gets
    ``up(down(x))`` of low rank (Hu et al. 2022, LoRA, eq. 3). With ``scale = 0`` (Bachlechner et al. 2021, ReZero,
    eq. 2) nothing changes at first.

    Attributes:
        site: Path of the layer; a ``Conv2d``, or a linear layer.
        branch: ``1x1``, ``3x3``, ``5x5``, ``depthwise`` (3x3 for each channel, then 1x1), ``dilated`` (3x3, twice the
            layer's dilation), or ``low_rank`` for linear layers.
        rank: Width of a ``low_rank`` branch, 1 or more; 0 for the others.
    """

    site: str
    branch: BranchKind
    rank: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.site, str) or self.branch not in get_args(BranchKind):
            raise ValueError(
                f"needs site: str and branch: one of {', '.join(get_args(BranchKind))}, found {self.site!r} and "
                f"{self.branch!r}"
            )
        is_whole = isinstance(self.rank, int) and not isinstance(self.rank, bool)
        if not is_whole or (self.rank < 1 if self.branch == "low_rank" else self.rank != 0):
            raise ValueError(f"needs rank: int, 1 or more for low_rank and 0 otherwise, found {self.rank!r}")

    @classmethod
    def candidates(cls, graph: ModelGraph, *, growth: float) -> Iterable[Self]:
        """Two kinds at every convolution without a branch, one at every linear layer without.

        A pointwise layer is offered kernels that look around, a larger one the point and the wider view; a low-rank
        branch has a quarter of the rank that the layer could have.
        """
        for call in sites(graph, divided=True):
            module = graph.model.get_submodule(call.path)
            if has_piece(module, (ConvBranch, LowRankBranch)):
                continue
            if isinstance(module, nn.Conv2d) and not _refusal(module, call, "1x1"):
                is_pointwise = max(module.kernel_size) == 1
                kinds: tuple[BranchKind, ...] = ("3x3", "depthwise") if is_pointwise else ("1x1", "dilated")
                for kind in kinds if call.shape[2] * call.shape[3] > 1 else ():
                    yield cls(site=call.path, branch=kind)
            elif not _refusal(module, call, "low_rank"):
                yield cls(site=call.path, branch="low_rank", rank=max(1, min(call.inputs[0][-1], call.shape[-1]) // 4))

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Hangs one piece on the layer."""
        call = site_at(graph, self.site, divided=True)
        module = graph.model.get_submodule(self.site)
        if refusal := _refusal(module, call, self.branch):
            raise SurgeryError(f"{self.site}: cannot add a {self._words} branch: {refusal}. Choose another kind.")
        if isinstance(module, nn.Conv2d):
            piece, arguments = "ConvBranch", _beside(module, self.branch)
        else:
            piece = "LowRankBranch"
            arguments = {"in_features": call.inputs[0][-1], "out_features": num_channels(call), "rank": self.rank}
        return Plan(grafts=(GraftEdit(self.site, piece, arguments, draw_seed(generator)),))

    def describe(self, graph: ModelGraph) -> str:
        """For example ``add a 3x3 branch beside blocks.0.conv1``."""
        return f"add a {self._words} branch beside {self.site}"

    @property
    def place(self) -> str:
        """The site."""
        return self.site

    @property
    def _words(self) -> str:
        return _WORDS.get(self.branch, self.branch)


def _refusal(module: nn.Module, call: ModuleCall, kind: BranchKind) -> str:
    """Returns why a site cannot have such a branch, or ``""``."""
    if len(call.inputs) != 1:
        return f"found {len(call.inputs)} tensors given to {own_class(module).__name__} by position, needed one"
    if kind != "low_rank":
        if not isinstance(module, nn.Conv2d) or not is_map(call):
            return f"found a {own_class(module).__name__}, needed a Conv2d"
        if own_class(module).forward is not nn.Conv2d.forward:
            return f"{own_class(module).__name__} has a forward of its own, so what it pads is not known"
        return ""
    is_linear = any(p.dim() == 2 for p in module.parameters(recurse=False)) and not is_map(call)
    if not is_linear or call.inputs[0][:-1] != call.shape[:-1]:
        return f"found a {own_class(module).__name__}, needed a linear layer over the last dimension"
    return ""


def _beside(conv: nn.Conv2d, kind: BranchKind) -> dict[str, Any]:
    """Returns the arguments of the branch that gives the same positions as a convolution does."""
    factor = _DILATED if kind == "dilated" else 1
    dilation = [factor * d for d in conv.dilation]
    kernel_size = [_EXTENT[kind]] * len(conv.kernel_size)
    sides = [side_padding(conv, dim, kernel_size[dim], dilation[dim]) for dim in range(len(kernel_size))]
    is_plain = conv.padding_mode == "zeros" and all(before == after >= 0 for before, after in sides)
    is_depthwise = conv.groups == conv.in_channels  # then a depthwise branch needs nothing to mix channels
    return {
        "in_channels": conv.in_channels,
        "out_channels": conv.out_channels,
        "kernel_size": kernel_size,
        "stride": list(conv.stride),
        "dilation": dilation,
        "padding": [before for before, _ in sides] if is_plain else [0] * len(sides),
        "groups": conv.groups,
        "pointwise": kind == "depthwise" and not is_depthwise,
        "frame": [] if is_plain else [n for side in reversed(sides) for n in side],
        "padding_mode": conv.padding_mode,
    }


def side_padding(conv: nn.Conv2d, dim: int, kernel_size: int, dilation: int) -> tuple[int, int]:
    """Returns what another kernel must be padded by to give the positions of a convolution, centred on the same inputs.

    With ``e = dilation * (kernel_size - 1) + 1``, both give ``(n + padding - e) // stride + 1`` positions, so the
    difference of ``padding - e`` is zero; half of it goes to each side, the odd one behind.

    Args:
        conv: The convolution.
        dim: 0 for height, 1 for width.
        kernel_size: Of the other kernel.
        dilation: Of the other kernel.

    Returns:
        Padding before and after; negative numbers cut off.
    """
    reach = conv.dilation[dim] * (conv.kernel_size[dim] - 1)
    if conv.padding == "same":
        before, after = reach // 2, reach - reach // 2
    elif conv.padding == "valid":
        before = after = 0
    else:
        before = after = int(conv.padding[dim])
    more = dilation * (kernel_size - 1) - reach
    return before + more // 2, after + more - more // 2
