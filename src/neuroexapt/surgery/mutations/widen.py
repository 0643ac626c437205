"""``Widen``: more units on one axis, which change nothing at first."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ChannelGroup, ModelGraph, is_meta
from neuroexapt.surgery.growth.fan_in import gradmax, informed
from neuroexapt.surgery.growth.units import Units, opposites, random_copies
from neuroexapt.surgery.growth.widening import group_at, grown, refused
from neuroexapt.surgery.mutation import Mutation
from neuroexapt.surgery.plan import Plan

Init = Literal["zero_fan_out", "copy", "pair", "informed", "gradmax"]
INITS: tuple[str, ...] = get_args(Init)
_TRIES = 64  # sizes that are tried to find one that is a multiple and that the code admits


@dataclass(frozen=True, kw_only=True, slots=True)
class Widen(Mutation):
    """Adds channels, heads, head width or MLP width to a channel group, and to every group that the code ties to it.

    The number of units is given as such (``to``), as a ratio, or not at all, and then becomes the next multiple. It is
    rounded up to ``multiple_of``; a ratio or a multiple goes on to the next size that the code admits.

    How new units begin (``init``), each function-preserving in eval and in train mode:

    - ``zero_fan_out``: random incoming weights at the layer's own root mean square and zero outgoing weights, which
      receive a gradient at once (Evci et al. 2022, GradMax, table 1 "inverse").
    - ``copy``: units chosen at random are copied and their outgoing weights shared unevenly among the copies
      (Chen et al. 2016, Net2Net, eq. 1; uneven after Wang et al. 2024, LEMON, section 3.2).
    - ``pair``: two by two with equal incoming weights (V, V) and opposite outgoing weights (Z, -Z).

    - ``informed``: zero outgoing weights, and incoming weights that answer what the readers' gradient asks for and the
      axis does not span yet (after Mitchell et al. 2023, SENN); see ``fan_in.informed``.
    - ``gradmax``: zero incoming weights, and outgoing weights that give these the largest gradient (Evci et al. 2022);
      see ``fan_in.gradmax``. Warns where the activation's slope at 0 is 0, as torch's ReLU has it.

    The last two measure gradients on the surgeon's ``objective``. Without one, as in the replay of a lineage whose
    weights are loaded afterwards, they warn and begin as ``zero_fan_out``; on the meta device they have no numbers.

    Where an operation reads across the axis (layer norm over a residual stream) every unit is copied equally often
    whatever ``init`` says of the default and ``copy``, so the number must then be a multiple of the size
    (``group.grows_by_factor``). Axes that the code ties to this one grow silently.

    Attributes:
        axis: Name of the channel group, the module that produces it, or ``parameter[dim]``.
        to: New number of units.
        ratio: New number over old number, > 1, instead of ``to``.
        multiple_of: What the new number is a multiple of, >= 1; hardware likes 8 or 64.
        init: How new units begin.
    """

    axis: str
    to: int | None = None
    ratio: float | None = None
    multiple_of: int = 1
    init: Init = "zero_fan_out"

    def __post_init__(self) -> None:
        if not isinstance(self.axis, str) or not (self.to is None or _is_count(self.to)):
            raise ValueError(f"needs axis: str and to: int >= 1, found {self.axis!r} and {self.to!r}")
        if self.ratio is not None and not (_is_number(self.ratio) and 1 < self.ratio < math.inf):
            raise ValueError(f"needs a ratio > 1, found {self.ratio!r}")
        if not _is_count(self.multiple_of):
            raise ValueError(f"needs multiple_of: int >= 1, found {self.multiple_of!r}")
        if self.to is not None and self.ratio is not None:
            raise ValueError(f"needs to or ratio, found both ({self.to} and {self.ratio})")
        if self.to is None and self.ratio is None and self.multiple_of == 1:
            raise ValueError("needs to, ratio or multiple_of > 1, found none")
        if self.init not in INITS:
            raise ValueError(f"needs init to be one of {', '.join(INITS)}, found {self.init!r}")

    @classmethod
    def candidates(cls, graph: ModelGraph, *, growth: float) -> Iterable[Self]:
        """Every group that can be widened."""
        for group in graph.groups:
            if group.can_widen:
                wanted = max(group.size + 1, round(group.size * growth))
                yield cls(axis=group.name, to=graph.size_from(group, wanted))

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Re-indexes every member of the group."""
        group = group_at(graph, self.axis)
        to = self.size_in(graph)
        if self.init in ("informed", "gradmax"):
            return self._measured(graph, group, to, generator)
        units = None
        if not group.static_reason and not (group.grows_by_factor and self.init == "copy"):
            units = self._units(group, to, generator)
        return grown(graph, group, to, generator, units)

    def size_in(self, graph: ModelGraph) -> int:
        """Returns the number of units that the axis of this model gets.

        Raises:
            SurgeryError: It is not larger, or there is no such size near.
        """
        group = group_at(graph, self.axis)
        if self.to is not None and self.multiple_of == 1:
            size = self.to
        else:
            size = self._admitted(graph, group, self._wanted(group))
        if size <= group.size:
            raise SurgeryError(f"{group.name}: found {group.size} units, needed fewer than {size}. Give a larger `to`.")
        return size

    def _wanted(self, group: ChannelGroup) -> int:
        if self.to is not None:
            return self.to
        return max(group.size + 1, 0 if self.ratio is None else round(group.size * self.ratio))

    def _admitted(self, graph: ModelGraph, group: ChannelGroup, wanted: int) -> int:
        """The first multiple from ``wanted`` on that the sizes in the user's code admit."""
        size = wanted
        for _ in range(_TRIES):
            size = math.ceil(size / self.multiple_of) * self.multiple_of
            admitted = graph.size_from(group, size)
            if admitted == size:
                return size
            size = admitted
        raise SurgeryError(
            f"{group.name}: found no multiple of {self.multiple_of} from {wanted} units on that the code admits. "
            "Give another `multiple_of`, or `to`."
        )

    def _units(self, group: ChannelGroup, to: int, generator: torch.Generator) -> Units | None:
        """How the axis's units begin; ``None`` for the way that the graph proposes."""
        if self.init == "zero_fan_out":
            return None
        self._check_silent(group, to)
        if self.init == "copy":
            return random_copies(group.size, to, generator)
        if (to - group.size) % 2:
            raise refused(group, to, f"pairs need an even number of new units, found {to - group.size}")
        return opposites(group.size, to)

    def _measured(self, graph: ModelGraph, group: ChannelGroup, to: int, generator: torch.Generator) -> Plan:
        """Grows silently, then gives the new units the weights that gradients ask for."""
        if not group.static_reason:
            self._check_silent(group, to)
        plan = grown(graph, group, to, generator)
        if is_meta(graph.model):
            return plan
        if graph.objective is None:
            warnings.warn(
                f"{group.name}: no objective, so new units begin as zero_fan_out, not {self.init}. Give "
                "Surgeon(..., objective=lambda model: loss(model(x), y)).",
                stacklevel=2,
            )
            return plan
        try:
            return (informed if self.init == "informed" else gradmax)(graph, group, to, plan, generator)
        except SurgeryError as error:
            raise refused(group, to, f"init={self.init!r}: {str(error).rstrip('.')}") from error

    def _check_silent(self, group: ChannelGroup, to: int) -> None:
        if group.grows_by_factor:
            raise refused(
                group,
                to,
                f"{group.readers[0]} reads across the axis, so its units can only be copied, all equally often, and "
                f"init={self.init!r} is not possible",
            )

    def describe(self, graph: ModelGraph) -> str:
        """For example ``widen stem.0 from 8 to 12``."""
        group = group_at(graph, self.axis)
        how = "" if self.init == "zero_fan_out" else f" ({self.init})"
        return f"widen {group.name} from {group.size} to {self.size_in(graph)}{how}"

    @property
    def place(self) -> str:
        """The axis."""
        return self.axis


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
