"""``RemoveLayer``: a layer that leaves, by being passed by, by folding into its neighbour, or for its successor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch
from torch import nn

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph, is_meta
from neuroexapt.surgery.mutation import Mutation
from neuroexapt.surgery.pieces import GatedOperation, Wire
from neuroexapt.surgery.plan import DECLARED, EXACT, Plan, SlotEdit
from neuroexapt.surgery.replacement.folds import NotFoldable, fold
from neuroexapt.surgery.replacement.identity import passages
from neuroexapt.surgery.writing.graft import CHILD, Grafted, is_piece_path, pieces_of, site_of

How = Literal["bypass", "fold", "settle"]

_SMALL = 65536  # entries of a gain or scale; larger parameters are not read to find candidates


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveLayer(Mutation):
    """Takes a layer, a block or an inserted piece out of the model; its name stays, on an ``nn.Identity``.

    ``bypass`` lets what went into the module come out of it: exact where the module is the identity on random numbers
    too, declared otherwise. ``fold`` multiplies a batch norm into the layer before it (exact in eval mode; Jacob et al.
    2018, section 3.2), or a linear layer or 1x1 convolution into the linear layer before or behind it (exact).
    ``settle`` ends a ``SwapOperation``: its new operation takes the module's place (exact when its gate is at 1).
    Skip connections that begin or end in what is bypassed go with it.

    Attributes:
        path: Of the module, or of a piece such as ``stem.relu.grafts.0``.
        how: ``bypass``, ``fold`` or ``settle``.
    """

    path: str
    how: How = "bypass"

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path or self.how not in get_args(How):
            known = ", ".join(get_args(How))
            raise ValueError(
                f"needs path: str, not empty, and how: one of {known}, found {self.path!r} and {self.how!r}"
            )

    @classmethod
    def candidates(cls, graph: ModelGraph, *, growth: float) -> Iterable[Self]:
        """What leaves without a trace: foldable layers, pieces and blocks without effect, finished exchanges."""
        runs = Counter(call.path for call in graph.calls)
        modules: dict[str, nn.Module] = dict(graph.model.named_modules())
        gone = _without_effect(graph, [path for path in modules if path and runs[path] == 1])
        for path, module in modules.items():
            if isinstance(module, GatedOperation):
                if module.is_done and _piece_alone(graph, site_of(path)):
                    yield cls(path=site_of(path), how="settle")
            elif path and runs[path] == 1 and _is_foldable(graph, path):
                yield cls(path=path, how="fold")
            elif path in gone:
                yield cls(path=path)

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Replaces the module in its slot; folding also rewrites the neighbour."""
        self._module(graph)
        if self.how == "settle":
            return self._settled(graph)
        if self.how == "fold":
            try:
                return fold(graph, self.path).plan
            except NotFoldable as error:
                raise self._refused(str(error)) from error
        return self._bypassed(graph)

    def _settled(self, graph: ModelGraph) -> Plan:
        piece = _piece_alone(graph, self.path)
        if piece is None:
            raise self._refused("needed one gated operation on it and nothing else, as SwapOperation leaves it")
        slot = SlotEdit(self.path, f"{self.path}.{CHILD}.0.operation")
        return Plan(slots=(slot,), changes=EXACT if piece.is_done else DECLARED)

    def _bypassed(self, graph: ModelGraph) -> Plan:
        ends = _other_ends(graph.model, self.path)
        slots = tuple(SlotEdit(path) for path in (self.path, *ends))
        if _has_no_scale(graph.model, self.path):
            return Plan(slots=slots, changes=EXACT)
        seen = passages(graph, [self.path])[self.path]
        if seen.refusal:
            raise self._refused(seen.refusal)
        return Plan(slots=slots, changes=DECLARED if ends else seen.changes)

    def _module(self, graph: ModelGraph) -> nn.Module:
        found: dict[str, nn.Module] = dict(graph.model.named_modules(remove_duplicate=False))
        if self.path not in found:
            raise SurgeryError(
                f"{self.path}: no module of that path in {type(graph.model).__name__}; "
                "needed a path from `model.named_modules()`."
            )
        if isinstance(found[self.path], nn.Identity):
            raise self._refused("an nn.Identity is there already")
        return found[self.path]

    def _refused(self, reason: str) -> SurgeryError:
        return SurgeryError(f"{self.path}: cannot {self.how}: {reason}. Choose another module or `how`.")

    def describe(self, graph: ModelGraph) -> str:
        """For example ``fold features.1 into features.0``."""
        self._module(graph)
        if self.how == "bypass":
            return f"remove {self.path}"
        if self.how == "settle":
            return f"leave the new operation of {self.path} alone"
        try:
            return f"fold {self.path} into {fold(graph, self.path).into}"
        except NotFoldable as error:
            raise self._refused(str(error)) from error

    @property
    def place(self) -> str:
        """The module."""
        return self.path


def _piece_alone(graph: ModelGraph, path: str) -> GatedOperation | None:
    """Returns the gated operation of a site on which nothing else hangs."""
    pieces = [p for p in pieces_of(graph.model.get_submodule(path)) if not isinstance(p, nn.Identity)]  # one that left
    return pieces[0] if len(pieces) == 1 and isinstance(pieces[0], GatedOperation) else None


def _is_foldable(graph: ModelGraph, path: str) -> bool:
    try:
        fold(graph, path)
    except NotFoldable:
        return False
    return True


def _has_no_scale(model: nn.Module, path: str) -> bool:
    """Whether a piece adds ``scale * something`` with a scale that is zero."""
    scale = model.get_submodule(path)._parameters.get("scale") if is_piece_path(path) else None
    return scale is not None and not scale.is_meta and not bool(scale.any())


def _without_effect(graph: ModelGraph, paths: list[str]) -> set[str]:
    """Returns which modules could be passed by exactly; the model is run only if one looks like it."""
    model, silent = graph.model, _silent_parameters(graph)
    scaled = {path for path in paths if _has_no_scale(model, path)}
    tried = [path for path in paths if path not in scaled and _may_be_silent(model.get_submodule(path), path, silent)]
    tried = [path for path in tried if not _other_ends(model, path)]
    return scaled | {path for path, seen in passages(graph, tried).items() if not seen.refusal and not seen.changes}


def _silent_parameters(graph: ModelGraph) -> list[str]:
    """Returns the gains and scales that are zero, as at the end of zero-initialised residual blocks."""
    named = [] if is_meta(graph.model) else list(graph.model.named_parameters())
    small = [(name, p) for name, p in named if p.numel() <= _SMALL and not name.endswith("bias")]
    return [name for name, p in small if not bool(p.any())]


def _may_be_silent(module: nn.Module, path: str, silent: list[str]) -> bool:
    """Whether it is worth running: a piece, or a block that holds a gain of zeros."""
    if is_piece_path(path):
        return path.rpartition(".")[0].endswith(CHILD) and not isinstance(module, nn.Identity)
    has_children = next(module.children(), None) is not None and not isinstance(module, Grafted)
    return has_children and any(name.startswith(f"{path}.") for name in silent)


def _other_ends(model: nn.Module, path: str) -> list[str]:
    """Returns the other ends of skip connections that begin or end in a module."""
    wires = {name: vars(module).get("wire") for name, module in model.named_modules() if is_piece_path(name)}
    ends = {name: wire for name, wire in wires.items() if isinstance(wire, Wire)}
    inside = {name for name in ends if f"{name}.".startswith(f"{path}.")}
    return [name for name, wire in ends.items() if name not in inside and any(ends[own] is wire for own in inside)]
