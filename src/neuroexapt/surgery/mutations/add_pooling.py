"""``AddPooling``: what lies around a position, or everywhere, brought to it; or fewer positions from here on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import torch

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph, ModuleCall
from neuroexapt.surgery.mutation import Mutation, draw_seed
from neuroexapt.surgery.places.sites import ends_of_chains, is_map, num_channels, site_at
from neuroexapt.surgery.plan import DECLARED, EXACT, GraftEdit, Plan

Variant = Literal["context_local", "context_global", "downsample"]

MIN_KERNEL = 3  # a local average of one position is none


@dataclass(frozen=True, kw_only=True, slots=True)
class AddPooling(Mutation):
    """Hangs a pooling branch behind a module as ``x + scale * mix(pool(x))`` with ``scale = 0``, or pools its output.

    ``context_local`` averages ``kernel_size`` positions each way around a position, ``context_global`` all (Cao et al.
    2019, GCNet, eq. 4): both exact. ``downsample`` averages windows of ``stride`` positions and keeps one of each, so
    the function changes in eval and in train mode, as declared; it is refused where the model does not run with fewer
    positions or its outputs get other shapes, and it is never proposed, only asked for.

    Attributes:
        site: Path of the module; it must run once per forward and return one tensor with positions.
        variant: One of the three above.
        kernel_size: ``context_local``: extent of the average, odd, at least 3.
        is_mixed: Context: whether a linear layer mixes the pooled channels (a 1x1 convolution); otherwise each channel
            gets its own average.
        stride: ``downsample``: old positions per new one along each side, at least 2.
    """

    site: str
    variant: Variant = "context_global"
    kernel_size: int = MIN_KERNEL
    is_mixed: bool = True
    stride: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.site, str) or self.variant not in get_args(Variant):
            raise ValueError(f"needs site: str and a variant of {get_args(Variant)}, found {self.variant!r}")
        for name, least in (("kernel_size", MIN_KERNEL), ("stride", 2)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"needs {name}: int >= {least}, found {value!r}")
        if self.kernel_size % 2 == 0 or not isinstance(self.is_mixed, bool):
            raise ValueError(
                f"needs an odd kernel_size and is_mixed: bool, found {self.kernel_size}, {self.is_mixed!r}"
            )

    @classmethod
    def candidates(cls, graph: ModelGraph, *, growth: float) -> Iterable[Self]:
        """At the end of every chain with feature maps: local context, then global; tokens only when asked for."""
        for call in ends_of_chains(graph):
            if is_map(call):
                if min(call.shape[2:]) > MIN_KERNEL:
                    yield cls(site=call.path, variant="context_local")
                yield cls(site=call.path, variant="context_global")

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Hangs one piece behind the site."""
        call = site_at(graph, self.site)
        self._check(call)
        if self.variant == "downsample":
            arguments: dict[str, Any] = {"stride": self.stride}
            graft = GraftEdit(self.site, "Downsample", arguments, draw_seed(generator))
            return Plan(grafts=(graft,), changes=DECLARED)
        size = self.kernel_size if self.variant == "context_local" else 0
        arguments = {"channels": num_channels(call), "kernel_size": size, "is_mixed": self.is_mixed}
        arguments["is_map"] = is_map(call)
        return Plan(grafts=(GraftEdit(self.site, "PooledContext", arguments, draw_seed(generator)),), changes=EXACT)

    def _check(self, call: ModuleCall) -> None:
        found = f"{self.site}: found an output {list(call.shape)}"
        if len(call.shape) == 2:
            raise SurgeryError(f"{found} without positions, needed [N, C, H, W] or [N, L, C]. Choose another module.")
        if self.variant == "downsample" and (not is_map(call) or min(call.shape[2:]) < self.stride):
            raise SurgeryError(
                f"{found}, needed [N, C, H, W] with H and W of at least {self.stride} to down-sample. Choose another "
                "module or a smaller stride."
            )

    def describe(self, graph: ModelGraph) -> str:
        """For example ``add global pooled context behind stem.2``."""
        if self.variant == "downsample":
            return f"down-sample {self.stride}x behind {self.site}"
        reach = "global" if self.variant == "context_global" else f"{self.kernel_size}-wide local"
        return f"add {reach} pooled context behind {self.site}"

    @property
    def place(self) -> str:
        """The site."""
        return self.site
