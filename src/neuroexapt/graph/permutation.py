"""The law of the graph: permuting every free axis, in all its members, leaves the model's output unchanged.

A wrong tie, or a missed one, shows at once; so a graph that passes on the real weights can be trusted with them. Fresh
norms and zero-initialised layers would hide errors, because permuting equal numbers does nothing; so tensors whose
entries are all equal are moved off them first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from neuroexapt.graph.fakes import ExampleInputs, named_tensors, undisturbed
from neuroexapt.graph.groups import ChannelGroup
from neuroexapt.graph.model_graph import ModelGraph

FEW = 2  # samples; one alone loses its batch dimension in some people's `squeeze`
ENOUGH_BYTES = 2**24  # of activations in them: four million float32 numbers


def permutation_error(graph: ModelGraph, generator: torch.Generator, groups: Sequence[ChannelGroup]) -> float:
    """Permutes all given groups at once, and runs the model in eval mode; its own tensors are not written to.

    Returns:
        Largest change of any output element relative to the largest output element.
    """
    tensors = _probe_tensors(graph, generator)
    return _error(graph, tensors, _outputs(graph, tensors), generator, groups)


def distrusted_groups(
    graph: ModelGraph, generator: torch.Generator, tolerance: float
) -> list[tuple[ChannelGroup, float]]:
    """Returns the groups whose permutation changes the output, found by halving; empty for a graph that holds."""
    tensors = _probe_tensors(graph, generator)
    free = [g for g in graph.groups if not g.pin_reason]
    if _holds_on_few(graph, tensors, generator, free, tolerance):
        return []
    before = _outputs(graph, tensors)

    def search(groups: list[ChannelGroup]) -> list[tuple[ChannelGroup, float]]:
        error = _error(graph, tensors, before, generator, groups) if groups else 0.0
        if error <= tolerance:
            return []
        if len(groups) == 1:
            return [(groups[0], error)]
        middle = len(groups) // 2
        return search(groups[:middle]) + search(groups[middle:])

    return search(free)


def relative_change(before: list[Tensor], after: list[Tensor]) -> float:
    """Largest |after - before| over all outputs, relative to the largest finite |before|.

    Equal infinities and two NaNs in the same place count as no change; outputs of other shapes, or an infinity or NaN
    on one side only, as an infinite one.
    """
    if [t.shape for t in before] != [t.shape for t in after]:
        return float("inf")
    worst = 0.0
    for old, new in zip(before, after, strict=True):
        x, y = _widest(old), _widest(new)
        differs = (x != y) & ~(x.isnan() & y.isnan())
        if bool(differs.any()):
            scale = torch.where(x.isfinite(), x.abs(), 0.0).max().clamp_min(1e-12)
            change = float((y - x)[differs].abs().max() / scale)
            worst = max(worst, change) if math.isfinite(change) else float("inf")
    return worst


def is_inexact(tensor: Tensor) -> bool:
    """Whether a tensor holds floating-point or complex numbers: what an edit may move by rounding alone."""
    return tensor.is_floating_point() or tensor.is_complex()


def _widest(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _holds_on_few(
    graph: ModelGraph,
    tensors: dict[str, Tensor],
    generator: torch.Generator,
    groups: Sequence[ChannelGroup],
    tolerance: float,
) -> bool:
    """Whether the law holds on two samples of a large batch, for a fraction of the cost.

    It is a law for any input, and two samples of a large model have as many positions as small models ever see. A
    forward that fails, or differs, on a smaller batch is judged on the whole one.
    """
    inputs = _few(graph)
    if inputs is None:
        return False
    try:
        before = _outputs(graph, tensors, inputs)
        return _error(graph, tensors, before, generator, groups, inputs) <= tolerance
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # the user's code on a batch size that it did not expect; its own batch decides
        return False


def _few(graph: ModelGraph) -> ExampleInputs | None:
    """Returns the first samples of the batch if their activations are many, else ``None``."""
    size = graph.cost.batch_size
    if size <= FEW or graph.cost.activation_bytes * FEW // size < ENOUGH_BYTES:
        return None
    args, kwargs = tree_map(
        lambda leaf: leaf[:FEW] if isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == size else leaf,
        (graph.inputs.args, graph.inputs.kwargs),
    )
    return ExampleInputs(args, kwargs)


def _error(
    graph: ModelGraph,
    tensors: dict[str, Tensor],
    before: list[Tensor],
    generator: torch.Generator,
    groups: Sequence[ChannelGroup],
    inputs: ExampleInputs | None = None,
) -> float:
    edits = {g.leaf: torch.randperm(g.size, generator=generator) for g in groups}
    permuted = dict(tensors)
    for name, tensor in named_tensors(graph.model).items():
        maps = graph.sources(name, edits)
        if any(m is not None for m in maps):
            permuted[name] = _alike(tensor, gathered(tensors.get(name, tensor).detach(), maps))
    return relative_change(before, _outputs(graph, permuted, inputs))


def _probe_tensors(graph: ModelGraph, generator: torch.Generator) -> dict[str, Tensor]:
    """Copies of all buffers, and of the parameters whose entries are all equal: those with noise of one sign on top."""
    buffers = {name for name, _ in graph.model.named_buffers()}
    tensors: dict[str, Tensor] = {}
    for name, tensor in named_tensors(graph.model).items():
        values = tensor.detach()
        if tensor.is_floating_point() and tensor.numel() > 1 and bool((values == values.flatten()[0]).all()):
            noise = torch.rand(tensor.shape, generator=generator) * 0.5
            tensors[name] = _alike(tensor, values + noise.to(values))
        elif name in buffers:
            tensors[name] = values.clone()
    return tensors


def _alike(tensor: Tensor, values: Tensor) -> Tensor:
    return nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values


def _outputs(graph: ModelGraph, tensors: dict[str, Tensor], inputs: ExampleInputs | None = None) -> list[Tensor]:
    model = graph.model
    with (
        undisturbed(model, training=False, tensors=tensors),
        torch.no_grad(),
    ):
        leaves = tree_leaves((inputs or graph.inputs).call(model))
    return [leaf.clone() for leaf in leaves if isinstance(leaf, Tensor) and is_inexact(leaf)]


def gathered(tensor: Tensor, maps: Sequence[Tensor | None]) -> Tensor:
    """Returns the tensor with each dimension re-indexed by its map (``None`` leaves a dimension alone)."""
    for dim, indices in enumerate(maps):
        if indices is not None:
            tensor = tensor.index_select(dim, indices.to(tensor.device))
    return tensor
