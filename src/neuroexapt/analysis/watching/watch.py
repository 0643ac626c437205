"""Running a model on batches and keeping, of every layer, as many samples as its budget holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuroexapt.analysis.watching.gathering import everybodys, num_processes, rank
from neuroexapt.analysis.watching.hooks import Watch, check_finite
from neuroexapt.analysis.watching.layers import WatchedLayer, WeightLayer, num_groups
from neuroexapt.analysis.watching.sample import GRADIENTS, INPUTS, POOLED, LayerSample, Rows, Views
from neuroexapt.analysis.watching.weight_gradients import weight_gradient_width
from neuroexapt.errors import InputError
from neuroexapt.graph import ExampleInputs, FlopCount, undisturbed

LossFunction = Callable[[Any, Tensor], Tensor]
GRADIENT_VIEWS = ("relevance", "inputs", "gradients", "weight_gradients")


@dataclass(frozen=True, eq=False)
class Watched:
    """What was seen of a model.

    Attributes:
        samples: By layer path.
        lost: Layer path to what could not be recorded of it, and why.
        largest: Elements of the largest activation of each layer.
        flops: Of all forward and backward passes.
    """

    samples: dict[str, LayerSample]
    lost: dict[str, dict[str, str]] = field(default_factory=dict)
    largest: dict[str, int] = field(default_factory=dict)
    flops: int = 0


def watch(
    model: nn.Module,
    layers: Sequence[WatchedLayer],
    batches: Iterable[tuple[Any, Tensor]],
    loss_function: LossFunction,
    *,
    num_samples: int,
    max_bytes: int,
    views: frozenset[str],
    seed: int,
) -> Watched:
    """Runs the model in eval mode, in isolation, until the rows of all layers are full or the batches end.

    Sample i of process r is number ``i * processes + r`` of the whole; what is recorded of it depends on that number
    and not on its batch. Under ``torch.distributed`` every process ends with the rows of all.

    Args:
        model: Not wrapped.
        layers: Of its graph.
        batches: Of (inputs, targets), drawn at random.
        loss_function: (outputs, targets) -> mean loss.
        num_samples: At most so many of all processes together.
        max_bytes: For each layer; rows take half of it at most.
        views: Which of ``LayerSample``'s tensors are wanted.
        seed: Of positions and projections.

    Raises:
        BudgetError: A layer's rows do not fit; nothing has been allocated.
        InputError: There is no batch.
        NonFiniteActivationError: An activation or gradient is NaN or infinite.
    """
    capacities, widths = {}, {}
    for layer in layers:
        widths[layer.path] = _views(layer, model.get_submodule(layer.path), views)
        capacities[layer.path] = widths[layer.path].capacity(layer.path, num_samples, max_bytes)
    share = {path: -(-count // num_processes()) for path, count in capacities.items()}
    rows: dict[str, Rows] = {}
    hooks = Watch(model, layers, rows, seed)
    seen, flops = 0, FlopCount()
    has_gradients = bool(views & set(GRADIENT_VIEWS))
    for inputs, targets in batches:
        if not rows:
            has_class = "targets" in views and targets.dim() == 1 and not targets.is_floating_point()
            for layer in layers:
                size = layer.num_inputs, layer.width
                rows[layer.path] = Rows(widths[layer.path], share[layer.path], *size, has_class)
        wanted = min(len(targets), max(share.values(), default=0) - seen)
        numbers = np.arange(seen, seen + wanted, dtype=np.uint64) * np.uint64(num_processes()) + np.uint64(rank())
        hooks.begin(numbers, seen, len(targets))
        with undisturbed(model, training=False), torch.set_grad_enabled(has_gradients), hooks.installed(), flops:
            _run(model, inputs, targets, loss_function, hooks, has_gradients)
        for store in rows.values():
            store.put_targets(seen, targets[:wanted])
        seen += wanted
        if seen >= max(share.values(), default=0):
            break
    if not seen:
        raise InputError("evidence: found no batch, needed at least one of (inputs, targets). Pass batches of data.")
    for path, store in rows.items():
        store.lost |= {view: why for view, why in hooks.unanswered(path).items() if view in store.views}
        if path not in hooks.largest:
            store.lost["features"] = "it did not run on these data as it did in the trace"
    kept = {path: store for path, store in rows.items() if "features" not in store.lost}
    return Watched(
        samples={p: everybodys(s.sample(min(seen, s.capacity)), capacities[p]) for p, s in kept.items()},
        lost={path: store.lost for path, store in rows.items() if store.lost},
        largest=hooks.largest,
        flops=flops.flops,
    )


def _run(
    model: nn.Module, inputs: Any, targets: Tensor, loss_function: LossFunction, hooks: Watch, has_gradients: bool
) -> None:
    """One forward, and where gradients are wanted one backward that stops at activations."""
    outputs = ExampleInputs.of(inputs).call(model)
    if not has_gradients:
        return
    loss = loss_function(outputs, targets)
    check_finite("the loss", "value", loss)
    if loss.requires_grad:
        torch.autograd.grad(loss, hooks.token, allow_unused=True)


def _views(layer: WatchedLayer, module: nn.Module, wanted: frozenset[str]) -> Views:
    assert isinstance(module, WeightLayer)
    sizes = {
        "pooled": POOLED,
        "relevance": layer.width,
        "inputs": min(layer.num_inputs, INPUTS),
        "gradients": min(layer.width // num_groups(module), GRADIENTS),
        "weight_gradients": weight_gradient_width(module),
    }
    return Views(features=layer.width, **{name: size for name, size in sizes.items() if name in wanted})
