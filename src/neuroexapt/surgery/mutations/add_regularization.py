"""``AddRegularization``: noise that rises from nothing, or a setting of the optimizer or of the loss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import torch

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph, ModuleCall
from neuroexapt.surgery.mutation import Mutation, draw_seed
from neuroexapt.surgery.places.residuals import Sums
from neuroexapt.surgery.places.sites import ends_of_chains, is_map, site_at
from neuroexapt.surgery.plan import IN_TRAIN, GraftEdit, Plan, SettingEdit

Variant = Literal["dropout", "drop_path", "weight_decay", "label_smoothing"]

_NOISE = ("dropout", "drop_path")
PROPOSED_RATE = 0.1  # of what candidates() yields; the usual value of small vision models


@dataclass(frozen=True, kw_only=True, slots=True)
class AddRegularization(Mutation):
    """Adds noise behind a module in train mode, or changes what the optimizer or the loss does.

    ``dropout`` (Srivastava et al. 2014) and ``drop_path`` (Huang et al. 2016, stochastic depth, eq. 5) are the identity
    in eval mode and, as declared, change the function in train mode, by a rate that rises from 0 over ``ramp_steps``
    train-mode forwards. The count is in the state dict. ``weight_decay`` is a value of the optimizer's parameter groups
    (Loshchilov & Hutter 2019) and ``label_smoothing`` an attribute of the loss (Szegedy et al. 2016, section 7):
    neither changes the function. They belong to the optimizer and to the loss, so a replay that has none skips them and
    logs a warning.

    Attributes:
        variant: One of the four above.
        rate: Final probability of a zero, or the value of the setting; in [0, 1).
        site: Path of a module. ``dropout``: behind it. ``drop_path``: its output is added to another path's.
            ``weight_decay``: in the groups that hold its parameters; empty for all.
        ramp_steps: Noise: train-mode forwards until the final rate; 0 begins with it.
        is_channelwise: ``dropout``: one draw for all positions of a channel.
    """

    variant: Variant
    rate: float
    site: str = ""
    ramp_steps: int = 1000
    is_channelwise: bool = False

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant) or not isinstance(self.site, str):
            raise ValueError(f"needs a variant of {get_args(Variant)} and site: str, found {self.variant!r}")
        if not isinstance(self.rate, int | float) or isinstance(self.rate, bool) or not 0 <= self.rate < 1:
            raise ValueError(f"needs a rate in [0, 1), found {self.rate!r}")
        if not isinstance(self.ramp_steps, int) or isinstance(self.ramp_steps, bool) or self.ramp_steps < 0:
            raise ValueError(f"needs ramp_steps: int >= 0, found {self.ramp_steps!r}")
        if not isinstance(self.is_channelwise, bool):
            raise ValueError(f"needs is_channelwise: bool, found {self.is_channelwise!r}")
        if bool(self.site) != (self.variant in _NOISE) and self.variant != "weight_decay":
            needs = "the path of a module as site" if self.variant in _NOISE else "no site"
            raise ValueError(f"{self.variant} needs {needs}, found {self.site!r}")
        object.__setattr__(self, "rate", float(self.rate))

    @classmethod
    def candidates(cls, graph: ModelGraph, *, growth: float) -> Iterable[Self]:
        """Dropout at the end of every chain that is no side of a sum, then drop-path on every residual branch.

        Settings are not proposed: a graph does not know the optimizer and the loss.
        """
        sums = Sums(graph)
        for call in ends_of_chains(graph):
            if not sums.takes(call):
                yield cls(variant="dropout", rate=PROPOSED_RATE, site=call.path, is_channelwise=is_map(call))
        for call in sums.branches():
            yield cls(variant="drop_path", rate=PROPOSED_RATE, site=call.path)

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Hangs one piece behind the site, or changes one setting."""
        if self.variant == "weight_decay":
            return Plan(settings=(SettingEdit("optimizer", "weight_decay", self.rate, self.site),))
        if self.variant == "label_smoothing":
            return Plan(settings=(SettingEdit("loss", "label_smoothing", self.rate),))
        call = site_at(graph, self.site)
        arguments: dict[str, Any] = {"rate": self.rate, "ramp_steps": self.ramp_steps}
        if self.variant == "dropout":
            piece, arguments["positions"] = "RampedDropout", self._positions(call)
        elif Sums(graph).takes(call):
            piece = "RampedDropPath"
        else:
            raise SurgeryError(
                f"{self.site}: its output is not simply added to another path's, so there would be nothing left of a "
                "sample without it. Choose the last module of a residual branch, or variant='dropout'."
            )
        return Plan(grafts=(GraftEdit(self.site, piece, arguments, draw_seed(generator)),), changes=IN_TRAIN)

    def _positions(self, call: ModuleCall) -> list[int]:
        """Dimensions along which one draw is shared."""
        if not self.is_channelwise:
            return []
        if len(call.shape) == 2:
            raise SurgeryError(
                f"{self.site}: found an output {list(call.shape)} without positions, needed some for whole channels. "
                "Use is_channelwise=False."
            )
        return [2, 3] if is_map(call) else [1]

    def describe(self, graph: ModelGraph) -> str:
        """For example ``add drop-path up to 0.1 behind blocks.0.bn2``."""
        if self.variant in _NOISE:
            whole = " of whole channels" if self.is_channelwise else ""
            return f"add {self.variant.replace('_', '-')}{whole} up to {self.rate:g} behind {self.site}"
        where = f" for {self.site}" if self.site else ""
        return f"set {self.variant.replace('_', ' ')} to {self.rate:g}{where}"

    @property
    def place(self) -> str:
        """The site, or the name of the setting."""
        return self.site or self.variant
