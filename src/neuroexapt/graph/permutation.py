"""The law of the graph: permuting every free axis, in all its members, leaves the model's output unchanged.

A wrong tie, or a missed one, shows at once; so a graph that passes on the real weights can be trusted with them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from neuroexapt.graph.fakes import ExampleInputs, in_mode, named_tensors, slots_holding
from neuroexapt.graph.groups import ChannelGroup
from neuroexapt.graph.model_graph import ModelGraph


def permutation_error(graph: ModelGraph, generator: torch.Generator, groups: Sequence[ChannelGroup]) -> float:
    """Permutes all given groups at once, and runs the model in eval mode; its own tensors are not written to.

    Returns:
        Largest change of any output element relative to the largest output element.
    """
    before = _outputs(graph.model, graph.inputs)
    with _permuted(graph, generator, groups):
        after = _outputs(graph.model, graph.inputs)
    return relative_change(before, after)


def distrusted_groups(
    graph: ModelGraph, generator: torch.Generator, tolerance: float
) -> list[tuple[ChannelGroup, float]]:
    """Returns the groups whose permutation changes the output, found by halving; empty for a graph that holds."""
    return _search(graph, generator, tolerance, [g for g in graph.groups if not g.pin_reason])


def relative_change(before: list[Tensor], after: list[Tensor]) -> float:
    """Largest |after - before| over all outputs, relative to the largest |before|; infinite when not comparable."""
    if [t.shape for t in before] != [t.shape for t in after]:
        return float("inf")
    worst = 0.0
    for old, new in zip(before, after, strict=True):
        if old.numel():
            scale = old.double().abs().max().clamp_min(1e-12)
            change = (new.double() - old.double()).abs().max() / scale
            worst = max(worst, float(change)) if bool(torch.isfinite(change)) else float("inf")
    return worst


def _search(
    graph: ModelGraph, generator: torch.Generator, tolerance: float, groups: list[ChannelGroup]
) -> list[tuple[ChannelGroup, float]]:
    error = permutation_error(graph, generator, groups) if groups else 0.0
    if error <= tolerance:
        return []
    if len(groups) == 1:
        return [(groups[0], error)]
    middle = len(groups) // 2
    found = _search(graph, generator, tolerance, groups[:middle])
    return found + _search(graph, generator, tolerance, groups[middle:])


def _outputs(model: nn.Module, inputs: ExampleInputs) -> list[Tensor]:
    with in_mode(model, training=False), torch.random.fork_rng(), torch.no_grad():
        leaves = tree_leaves(inputs.call(model))
    return [leaf.clone() for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _permuted(
    graph: ModelGraph, generator: torch.Generator, groups: Sequence[ChannelGroup]
) -> contextlib.AbstractContextManager[None]:
    edits = {g.leaf: torch.randperm(g.size, generator=generator) for g in groups}
    permuted: dict[str, Tensor] = {}
    for name, tensor in named_tensors(graph.model).items():
        maps = graph.sources(name, edits)
        if any(m is not None for m in maps):
            values = gathered(tensor.detach(), maps)
            permuted[name] = nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values
    return slots_holding(graph.model, permuted)


def gathered(tensor: Tensor, maps: Sequence[Tensor | None]) -> Tensor:
    """Returns the tensor with each dimension re-indexed by its map (``None`` leaves a dimension alone)."""
    for dim, indices in enumerate(maps):
        if indices is not None:
            tensor = tensor.index_select(dim, indices.to(tensor.device))
    return tensor
