"""``InsertLayer``: one more layer behind an existing one (serial division), doing nothing at first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph, ModuleCall, resolve
from neuroexapt.surgery.graft import is_piece_path
from neuroexapt.surgery.mutation import Mutation, draw_seed
from neuroexapt.surgery.plan import GraftEdit, Plan

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
        leaf_calls = [call for call in graph.calls if not _refusal(graph, call) and _is_layer(graph, call)]
        for index, call in enumerate(leaf_calls):
            following = leaf_calls[index + 1] if index + 1 < len(leaf_calls) else None
            if following is None or not _continues(graph, call, following):
                yield cls(site=call.path, kernel_size=3 if len(call.shape) == 4 else 1)

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Hangs one piece behind the site."""
        call = self._call(graph)
        is_convolution = len(call.shape) == 4
        if not is_convolution and self.kernel_size != 1:
            raise SurgeryError(f"{self.site}: a linear layer has no kernel; found {self.kernel_size}, needed 1.")
        channels = call.shape[1] if is_convolution else call.shape[-1]
        arguments: dict[str, int | bool] = {"channels": channels, "as_identity": call.producer in _IDEMPOTENT}
        if is_convolution:
            arguments["kernel_size"] = self.kernel_size
        piece = "InsertedConv" if is_convolution else "InsertedLinear"
        return Plan(grafts=(GraftEdit(self.site, piece, arguments, draw_seed(generator)),))

    def describe(self, graph: ModelGraph) -> str:
        """For example ``insert a 3x3 convolution behind blocks.0.relu``."""
        call = self._call(graph)
        size = self.kernel_size
        layer = f"a {size}x{size} convolution" if len(call.shape) == 4 else "a linear layer"
        return f"insert {layer} behind {self.site}"

    @property
    def place(self) -> str:
        """The site."""
        return self.site

    def _call(self, graph: ModelGraph) -> ModuleCall:
        found = [call for call in graph.calls if call.path == self.site]
        if not found:
            raise SurgeryError(
                f"{self.site}: no module of that path runs in {type(graph.model).__name__}; "
                "`insert` needs a path from `model.named_modules()`."
            )
        refusal = _refusal(graph, found[0])
        if refusal:
            raise SurgeryError(f"{self.site}: cannot insert a layer here: {refusal}. Choose another module.")
        return found[0]


def _refusal(graph: ModelGraph, call: ModuleCall) -> str:
    """Returns why nothing can be inserted behind this call, or ``""``."""
    module = graph.model.get_submodule(call.path)
    if is_piece_path(call.path) or any(name != "grafts" for name, _ in module.named_children()):
        return "it contains other modules, and code may walk over them"
    if Counter(c.path for c in graph.calls)[call.path] != 1:
        return "it runs more than once per forward, and each run would need its own layer"
    if call.output is None or not call.is_floating_point or len(call.shape) not in (2, 3, 4):
        return "its output is not one floating-point tensor of 2 to 4 dimensions"
    at = 1 if len(call.shape) == 4 else len(call.shape) - 1
    dims = [resolve(space) for space in call.output.dims]
    channel = dims.pop(at)
    if channel.size < 2 or channel.form == "product":
        return "its output has no plain channel axis"
    if channel.pin_reason:
        return channel.pin_reason
    if any(space.size > 1 and not space.pin_reason for space in dims):
        return "its channels are not where a layer would look for them"
    return ""


def _is_layer(graph: ModelGraph, call: ModuleCall) -> bool:
    """Whether the module computes units or activates them, at more than one position if they have positions."""
    module = graph.model.get_submodule(call.path)
    is_activation = type(module).__module__ == "torch.nn.modules.activation"
    has_positions = len(call.shape) != 4 or call.shape[2] * call.shape[3] > 1
    return has_positions and (is_activation or next(module.parameters(recurse=False), None) is not None)


def _continues(graph: ModelGraph, call: ModuleCall, following: ModuleCall) -> bool:
    """Whether the next site only normalises or activates this one's output."""
    module = graph.model.get_submodule(following.path)
    makes_units = isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
    return not makes_units and following.shape == call.shape
