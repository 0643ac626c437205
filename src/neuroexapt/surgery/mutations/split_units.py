"""``SplitUnits``: neuron division. Chosen units are copied and what reads them is divided among the two."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ChannelGroup, ModelGraph, Role, division, is_meta, named_tensors
from neuroexapt.surgery.checking.measure import measure
from neuroexapt.surgery.growth.by_unit import sum_by_unit, unit_indices
from neuroexapt.surgery.growth.splitting import steepest_directions
from neuroexapt.surgery.growth.units import Units, halves, indices_of, positions
from neuroexapt.surgery.growth.widening import group_at, grown
from neuroexapt.surgery.mutation import Mutation, draw_seed
from neuroexapt.surgery.plan import DECLARED, EXACT, Plan, TensorEdit
from neuroexapt.surgery.writing.gather import edited

SplitMode = Literal["symmetric", "asymmetric", "functional", "adaptive"]
Direction = Literal["random", "steepest"]
KEPT = 0.75  # share of the original in an asymmetric division


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitUnits(Mutation):
    """Divides chosen units: each is copied, and its outgoing weights v become s v and (1 - s) v.

    Exact so far (Chen et al. 2016, Net2Net, eq. 1). Then, with e = ``perturbation`` > 0, the incoming weights w become
    w + 2 (1 - s) e d and w - 2 s e d, whose mean by shares is w: the change of the outputs is of second order in e,
    and none where only linear steps lie between. Each row moves by at most 2 e |w| (e |w| for halves), and so what is
    heard of a unit whose activation has slope <= 1 by at most 4 s (1 - s) e |w| |x| <= e |w| |x| at an input x. The
    division then declares that it changes the function; without perturbation it is verified to be exact.

    - ``symmetric``: s = 1/2 and d of length |w|, at random or the least eigenvector of the splitting matrix (Wu, Wang
      & Liu 2019); needs e > 0, because equal halves of equal units stay equal for ever.
    - ``asymmetric``: s = 3/4, so that training tells the halves apart also with e = 0.
    - ``functional``: s = 1/2 and d = w with the sign of half of its entries changed: the halves specialise on
      complementary inputs, and at e = 1 they have complementary masks of 2 w.
    - ``adaptive``: s by unit from ``shares``, which ``adapted`` finds by measuring; d as for ``symmetric``.

    Attributes:
        axis: Name of the channel group, the module that produces it, or ``parameter[dim]``.
        units: Distinct indices of the units that are divided.
        mode: How.
        shares: What each original keeps, between 0 and 1; only for ``adaptive``.
        perturbation: e, relative to the norm of the incoming weights, from 0 to 1.
        direction: Of the perturbation: ``random``, or ``steepest``, which needs the surgeon's objective.
    """

    axis: str
    units: tuple[int, ...]
    mode: SplitMode = "asymmetric"
    shares: tuple[float, ...] = ()
    perturbation: float = 0.0
    direction: Direction = "random"

    def __post_init__(self) -> None:
        if not isinstance(self.units, (tuple, list)) or not isinstance(self.shares, (tuple, list)):
            raise ValueError(
                f"needs axis: str and units: distinct ints >= 0, found {self.axis!r} and {self.units!r}, with shares "
                f"{self.shares!r}"
            )
        object.__setattr__(self, "units", tuple(self.units))
        object.__setattr__(self, "shares", tuple(self.shares))
        is_index = all(isinstance(u, int) and not isinstance(u, bool) and u >= 0 for u in self.units)
        if not isinstance(self.axis, str) or not self.units or not is_index or len({*self.units}) < len(self.units):
            raise ValueError(f"needs axis: str and units: distinct ints >= 0, found {self.axis!r} and {self.units!r}")
        if self.mode not in get_args(SplitMode) or self.direction not in get_args(Direction):
            known = ", ".join(get_args(SplitMode))
            raise ValueError(f"needs a mode of {known} and a direction, found {self.mode!r} and {self.direction!r}")
        if len(self.shares) != (len(self.units) if self.mode == "adaptive" else 0):
            raise ValueError(f"needs one share a unit for adaptive and none else, found {len(self.shares)}")
        if not all(isinstance(share, float) and 0 < share < 1 for share in self.shares):
            raise ValueError(f"needs shares between 0 and 1, found {self.shares!r}")
        if not isinstance(self.perturbation, (int, float)) or not 0 <= self.perturbation <= 1:
            raise ValueError(f"needs a perturbation from 0 to 1, found {self.perturbation!r}")
        if not self.perturbation and 0.5 in self._kept():
            raise ValueError("needs perturbation > 0 where a unit is halved: equal halves stay equal for ever")

    @classmethod
    def candidates(cls, graph: ModelGraph, *, growth: float) -> Iterable[Self]:
        """In every group whose units can be divided, those with the largest weights around them, unevenly."""
        for group in graph.groups:
            if not group.can_widen or group.grows_by_factor or isinstance(division(graph.tape, group.leaf), str):
                continue
            to = graph.size_from(group, max(group.size + 1, round(group.size * growth)))
            if to <= 2 * group.size:
                yield cls(axis=group.name, units=busiest(graph, group, to - group.size))

    @classmethod
    def adapted(cls, graph: ModelGraph, *, axis: str, count: int) -> Self:
        """Divides the units that the loss depends on most, the more evenly the more it does.

        Measures |w dL/dw| summed over each unit's incoming weights (Taylor; Molchanov et al. 2019) on the objective;
        the share that an original keeps goes from 0.55 at the largest to 0.75 at none.
        """
        group = group_at(graph, axis)
        gradients = measure(graph, (), gradients=True).gradients
        tensors = named_tensors(graph.model)
        products = {path: (g * tensors[path].detach()).abs() for path, g in gradients.items()}
        score = _by_unit(graph, group, products, Role.PRODUCE)
        units = sorted(score.topk(count).indices.tolist())
        relative = score[units] / score.max().clamp_min(torch.finfo(score.dtype).tiny)
        shares = tuple(round(float(0.75 - 0.2 * r), 6) for r in relative)
        return cls(axis=axis, units=tuple(units), mode="adaptive", shares=shares)

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Copies the units, divides what reads them, and moves what makes them apart."""
        group = group_at(graph, self.axis)
        if max(self.units) >= group.size:
            raise SurgeryError(
                f"{group.name}: found {group.size} units, needed unit {max(self.units)}. Give smaller `units`."
            )
        if group.grows_by_factor and not group.static_reason:
            raise SurgeryError(
                f"{group.name}: {group.readers[0]} reads across the axis, so no unit can be copied alone. "
                "Use Widen with a multiple of its size."
            )
        to = group.size + len(self.units)
        plan = grown(graph, group, to, generator, self._halves(group, self._kept()))
        if not self.perturbation:
            return replace(plan, changes=EXACT)
        return replace(plan, tensors=self._apart(graph, group, plan, generator), changes=DECLARED)

    def _kept(self) -> tuple[float, ...]:
        if self.mode == "adaptive":
            return self.shares
        return (KEPT if self.mode == "asymmetric" else 0.5,) * len(self.units)

    def _halves(self, group: ChannelGroup, kept: tuple[float, ...]) -> Units:
        return halves(group.size, self.units, torch.tensor(kept, dtype=torch.float64))

    def _apart(
        self, graph: ModelGraph, group: ChannelGroup, plan: Plan, generator: torch.Generator
    ) -> tuple[TensorEdit, ...]:
        """Perturbs what makes the units; by the tensors' own numbers, so that an average keeps its own."""
        sizes = graph.resizing({group.leaf: group.size + len(self.units)}).sizes
        weights = {path for path, tensor in named_tensors(graph.model).items() if isinstance(tensor, nn.Parameter)}
        made = {(m.path, m.dim) for m in group.members if Role.PRODUCE in m.roles and m.path in weights}
        directions = self._steepest(graph, group, made, generator)
        edits = []
        for edit in plan.tensors:
            dims = [dim for path, dim in made if path == edit.path]
            for dim in dims:
                ids = positions(graph.parameters[edit.path].dims[dim], group.leaf, sizes)
                move = _Move(
                    dim=dim,
                    kept=indices_of(ids, self.units),
                    copies=indices_of(ids, range(group.size, group.size + len(self.units))),
                    shares=torch.tensor(self._kept(), dtype=torch.float64),
                    size=float(self.perturbation),
                    seed=draw_seed(generator),
                    is_masking=self.mode == "functional",
                    directions=directions,
                )
                edit = replace(edit, rewrite=partial(_moved_apart, edit, move))
            edits.append(edit)
        return tuple(edits)

    def _steepest(
        self, graph: ModelGraph, group: ChannelGroup, made: set[tuple[str, int]], generator: torch.Generator
    ) -> Tensor | None:
        if self.direction == "random" or self.mode == "functional" or is_meta(graph.model):
            return None
        if graph.objective is None:
            warnings.warn(
                f"{group.name}: no objective, so the split goes in random directions. Give Surgeon(..., objective=).",
                stacklevel=2,
            )
            return None
        ((path, dim), *others) = sorted(made)
        if others or dim or graph.parameters[path].dims[dim].form != "leaf":
            raise SurgeryError(f"{group.name}: several rows make a unit. Give direction='random'.")
        equal = self._halves(group, (0.5,) * len(self.units))
        to = group.size + len(self.units)
        split = grown(graph, group, to, torch.Generator().manual_seed(draw_seed(generator)), equal)
        kept, copies = torch.tensor(self.units), torch.arange(group.size, to)
        return steepest_directions(graph, split, path, kept, copies)

    def describe(self, graph: ModelGraph) -> str:
        """For example ``split 2 units of stem.0 (asymmetric)``."""
        units = "1 unit" if len(self.units) == 1 else f"{len(self.units)} units"
        return f"split {units} of {group_at(graph, self.axis).name} ({self.mode})"

    @property
    def place(self) -> str:
        """The axis."""
        return self.axis


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Move:
    """How the incoming weights of originals and copies part along one dimension of a tensor."""

    dim: int
    kept: Tensor
    copies: Tensor
    shares: Tensor
    size: float
    seed: int
    is_masking: bool
    directions: Tensor | None


def _moved_apart(edit: TensorEdit, move: _Move, tensors: Mapping[str, Tensor]) -> Tensor:
    whole = edit.rewrite(tensors) if edit.rewrite else edited(tensors[edit.path], edit)
    whole = whole.movedim(move.dim, 0).clone()
    rows = whole[move.kept].reshape(len(move.kept), -1)
    step = _directions(rows, move) * (2 * move.size)
    shares = move.shares.repeat_interleave(len(rows) // len(move.shares)).to(rows)[:, None]
    whole[move.kept] += ((1 - shares) * step).view_as(whole[move.kept])
    whole[move.copies] -= (shares * step).view_as(whole[move.copies])
    return whole.movedim(0, move.dim)


def _directions(rows: Tensor, move: _Move) -> Tensor:
    """Returns d for every row: of its length, or the row with changed signs."""
    generator = torch.Generator().manual_seed(move.seed)
    noise = torch.randn(rows.shape, generator=generator, dtype=torch.float64).to(rows)
    if move.is_masking:
        return rows * torch.where(noise.argsort(1).argsort(1) % 2 == 0, 1.0, -1.0)
    found = torch.nn.functional.normalize(noise, dim=1)
    if move.directions is not None:
        best = move.directions.to(rows)
        found = torch.where(best.any(1, keepdim=True), best, found)
    length: Tensor = rows.norm(dim=1, keepdim=True)
    return found * length


def busiest(graph: ModelGraph, group: ChannelGroup, count: int) -> tuple[int, ...]:
    """Returns the units with the largest product of incoming and outgoing weights; the first on the meta device."""
    if is_meta(graph.model):
        return tuple(range(count))
    squares = {path: tensor.detach().abs().square() for path, tensor in named_tensors(graph.model).items()}
    score = _by_unit(graph, group, squares, Role.PRODUCE) * _by_unit(graph, group, squares, Role.CONSUME)
    return tuple(sorted(score.topk(count).indices.tolist()))


def _by_unit(graph: ModelGraph, group: ChannelGroup, values: Mapping[str, Tensor], role: Role) -> Tensor:
    """Sums over the entries that make or read each unit."""
    total = torch.zeros(group.size, dtype=torch.float64)
    for member in group.members:
        if role in member.roles and member.path in values:
            units = unit_indices(graph.parameters[member.path].dims[member.dim], group.leaf)
            if units is not None:
                total += sum_by_unit(values[member.path], member.dim, units, group.size)
    return total
