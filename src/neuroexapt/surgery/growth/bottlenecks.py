"""Which axis of a chain or block is its bottleneck, by evidence: numbers where there are some, widths where not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from neuroexapt.graph import ChannelGroup, ModelGraph, Role, is_meta, resolve
from neuroexapt.surgery.checking.measure import measure

Evidence = Literal["effective rank", "relative width"]
MAX_ROWS = 1024  # positions of a calibration batch that an effective rank is computed from


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The narrowest axis of a block.

    Attributes:
        group: The axis.
        block: Path of the module whose children make it, ``""`` for the model itself.
        evidence: What was compared within the block.
        value: ``effective rank`` over the width, the larger the fuller; or the width over the mean width of the axes
            on the other side of the same weights, the smaller the narrower.
    """

    group: ChannelGroup
    block: str
    evidence: Evidence
    value: float


def bottlenecks(graph: ModelGraph) -> Iterator[Bottleneck]:
    """Yields for every block the axis that is used most fully on calibration data, if the graph has an objective;
    else the axis that is narrowest beside its neighbours, if it is narrower than they are.

    Raises:
        SurgeryError: The objective does not run.
    """
    blocks: dict[str, list[ChannelGroup]] = {}
    for group in graph.groups:
        if group.producers and group.can_widen:
            blocks.setdefault(group.producers[0].rpartition(".")[0], []).append(group)
    fullness = _fullness(graph) if graph.objective is not None and not is_meta(graph.model) else {}
    for block, groups in blocks.items():
        known = [(fullness[g.name], g) for g in groups if g.name in fullness]
        if known:
            value, group = max(known, key=lambda pair: pair[0])
            yield Bottleneck(group, block, "effective rank", round(value, 6))
            continue
        widths = [(width, g) for g in groups if (width := relative_width(graph, g)) is not None]
        value, group = min(widths, key=lambda pair: pair[0], default=(1.0, groups[0]))
        if value < 1:
            yield Bottleneck(group, block, "relative width", round(value, 6))


def relative_width(graph: ModelGraph, group: ChannelGroup) -> float | None:
    """Returns the width over the mean width of what the weights around the axis connect it with."""
    own, others = 0, 0
    for member in group.members:
        shape = [space.size for space in graph.parameters[member.path].dims]
        if member.roles & {Role.PRODUCE, Role.CONSUME} and member.dim < 2 <= len(shape) and shape[1 - member.dim] > 1:
            own += shape[member.dim]
            others += shape[1 - member.dim]
    return own / others if others else None


def effective_rank(activations: Tensor) -> float:
    """Returns exp of the entropy of the normalised singular values (Roy & Vetterli 2007), of centred columns.

    Args:
        activations: ``[samples, units]``.
    """
    values = torch.linalg.svdvals((activations - activations.mean(0)).double())
    if not values.sum() > 0:
        return 0.0
    return float(torch.special.entr(values / values.sum()).sum().exp())


def _fullness(graph: ModelGraph) -> dict[str, float]:
    """Effective rank over width of what each axis's reader gets, where that is a plain linear or convolution layer."""
    readers: dict[str, str] = {}
    for group in graph.groups:
        for path in group.consumers:
            module = graph.model.get_submodule(path)
            is_plain = isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
            weight = graph.parameters.get(f"{path}.weight")
            if is_plain and weight is not None and resolve(weight.dims[1]) is group.leaf:
                readers.setdefault(group.name, path)
    seen = measure(graph, tuple(dict.fromkeys(readers.values()))).inputs
    found = {}
    for name, path in readers.items():
        if path not in seen:
            continue
        at = 1 if isinstance(graph.model.get_submodule(path), nn.Conv2d) else -1
        rows = seen[path].movedim(at, -1).flatten(0, -2)
        rows = rows[:: max(1, len(rows) // MAX_ROWS)][:MAX_ROWS]
        found[name] = effective_rank(rows) / rows.shape[1]
    return found
