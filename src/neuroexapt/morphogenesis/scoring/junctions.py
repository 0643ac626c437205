"""Where the zero entries of an edit are: the junctions at which its new units meet the network.

Known from a plan alone. Two forms: a *layer* whose weight has new columns (the reader of a widened axis, or the last
layer of a piece), and the *scale* of a piece, one entry a channel. What is spanned already is, at a reader, its old
columns, and at a piece what the layers read that write into the same tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from neuroexapt.analysis.watching.layers import WeightLayer, fed_by
from neuroexapt.graph import NEW, ModelGraph
from neuroexapt.surgery import Plan
from neuroexapt.surgery.plan import GraftEdit, TensorEdit

MAX_WRITERS = 4  # layers whose columns count as spanned at a piece, the last to run first


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """A layer that reads new units.

    Attributes:
        path: Of the layer.
        is_new: Boolean, one for each of its input channels after the edit.
        maker: Path of the one layer that makes the units, or ``""``.
        units: New units.
    """

    path: str
    is_new: Tensor
    maker: str
    units: int


@dataclass(frozen=True, slots=True)
class Graft:
    """A piece that is hung on a module.

    Attributes:
        site: Path of the module.
        writers: Layers whose output reaches the site's without passing through another layer.
    """

    site: str
    writers: tuple[str, ...]


Place = Reader | Graft


def places_of(graph: ModelGraph, plan: Plan) -> tuple[Place, ...] | str:
    """Returns the junctions of a plan, or why it has no growth score."""
    if reason := _not_growth(plan):
        return reason
    if plan.grafts:
        return tuple(Graft(graft.site, writers_of(graph, graft.site)) for graft in plan.grafts)
    readers = [edit for edit in plan.tensors if _is_plain(graph, edit, 1) and 1 in edit.fill.zero_dims]
    makers = [edit.path.rpartition(".")[0] for edit in plan.tensors if _is_plain(graph, edit, 0)]
    if not readers:
        return "its new units are read by no linear layer or convolution with one group"
    found = []
    for edit in readers:
        indices = edit.maps[1]
        assert indices is not None
        path, is_new = edit.path.rpartition(".")[0], indices == NEW
        maker = makers[0] if len(makers) == len(readers) == 1 and makers[0] != path else ""
        found.append(Reader(path, is_new, maker, int(is_new.sum())))
    return tuple(found)


def writers_of(graph: ModelGraph, site: str) -> tuple[str, ...]:
    """Returns the layers whose output reaches a module's without passing through another, the last to run first."""
    target = next((call.output for call in graph.calls if call.path == site), None)
    paths = [call.path for call in graph.calls]
    layers = {path for path in paths if isinstance(graph.model.get_submodule(path), WeightLayer)}
    found: frozenset[str] = frozenset()
    for operation, sources in fed_by(graph, layers):
        if any(graph.tape.values[number] is target for number in operation.outputs):
            found = frozenset({operation.module}) if operation.module in layers else sources
    return tuple(sorted(found, key=lambda path: -paths.index(path))[:MAX_WRITERS])


def _not_growth(plan: Plan) -> str:
    """Why nothing that begins at zero is added, or ``""``."""
    if plan.declared:
        return "it changes the function at once"
    if plan.then is not None or plan.slots or plan.masks or plan.parameters or plan.settings:
        return "it adds no units that begin at zero"
    if bool(plan.tensors) == bool(plan.grafts):
        return "it adds no units that begin at zero"
    if any(_has_copies(edit) for edit in plan.tensors):
        return "its new units are copies of old ones, which point in no direction of their own"
    if any(edit.rewrite is not None for edit in plan.tensors):
        return "its new units have measured weights, which are not zero where they are read"
    return ""


def _has_copies(edit: TensorEdit) -> bool:
    for indices in edit.maps:
        if indices is not None:
            old = indices[indices != NEW]
            if len(set(old.tolist())) < len(old):
                return True
    return False


def _is_plain(graph: ModelGraph, edit: TensorEdit, dim: int) -> bool:
    """Whether an edit gives the weight of a linear layer or plain convolution new indices along a dimension."""
    path, _, name = edit.path.rpartition(".")
    if name != "weight" or len(edit.maps) <= dim:
        return False
    module, indices = graph.model.get_submodule(path), edit.maps[dim]
    has_new = indices is not None and bool((indices == NEW).any())
    return has_new and isinstance(module, WeightLayer) and getattr(module, "groups", 1) == 1


def piece_paths(graph: ModelGraph, grafts: Sequence[GraftEdit]) -> tuple[str, ...]:
    """Returns where pieces come to hang when they are hung one after another."""
    count: dict[str, int] = {}
    paths = []
    for graft in grafts:
        for site in (*((graft.reads,) if graft.reads else ()), graft.site):
            hanging = graph.model.get_submodule(site)._modules.get("grafts")
            index = count.setdefault(site, len(hanging) if isinstance(hanging, nn.ModuleList) else 0)
            count[site] += 1
        paths.append(f"{graft.site}.grafts.{index}")
    return tuple(paths)
