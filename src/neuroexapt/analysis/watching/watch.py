"""Running a model on batches and keeping, of every layer, as many samples as its budget holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from neuroexapt.analysis.watching.checking import told
from neuroexapt.analysis.watching.defaults import plain_defaults
from neuroexapt.analysis.watching.gathering import everybodys, from_all, num_processes, rank, together
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
        positions: The most that a sample had at the output of each layer.
        flops: Of all forward and backward passes.
    """

    samples: dict[str, LayerSample]
    lost: dict[str, dict[str, str]] = field(default_factory=dict)
    largest: dict[str, int] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
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
    and not on its batch. Under ``torch.distributed`` every process ends with the rows of all: as many of each as the
    one with the fewest has, and if one fails, all do.

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
    if not layers:
        return Watched(samples={})
    capacities, widths = {}, {}
    for layer in layers:
        widths[layer.path] = _views(layer, model.get_submodule(layer.path), views)
        capacities[layer.path] = widths[layer.path].capacity(layer.path, num_samples, max_bytes)
    share = {path: -(-count // num_processes()) for path, count in capacities.items()}
    most = max(share.values())
    rows: dict[str, Rows] = {}
    with torch.inference_mode(False), plain_defaults():
        hooks = Watch(model, layers, rows, seed)
    seen, flops = 0, FlopCount()
    has_gradients = bool(views & set(GRADIENT_VIEWS))
    with together(), torch.inference_mode(False):
        for inputs, targets in batches:
            if not rows:
                has_class = "targets" in views and targets.dim() == 1 and not targets.is_floating_point()
                rows |= _empty(layers, widths, share, has_class)
            wanted = min(len(targets), most - seen)
            numbers = np.arange(seen, seen + wanted, dtype=np.uint64) * np.uint64(num_processes()) + np.uint64(rank())
            hooks.begin(numbers, seen, len(targets))
            with undisturbed(model, training=False), torch.set_grad_enabled(has_gradients), hooks.installed(), flops:
                _run(model, inputs, targets, loss_function, hooks, has_gradients)
            for path, store in rows.items():
                store.put_targets(seen, targets[:wanted])
                if path not in hooks.read and seen < store.capacity:
                    store.lost["features"] = "it did not run on these data as it did in the trace"
            seen += wanted
            if seen >= most:
                break
        if not seen:
            raise InputError(
                "evidence: found no batch, needed one of (inputs, targets) at least. Pass batches of data."
            )
        for path, store in rows.items():
            store.lost |= {view: why for view, why in hooks.unanswered(path).items() if view in store.views}
    return _gathered(rows, capacities, hooks, seen, flops.flops)


@plain_defaults()
def _empty(
    layers: Sequence[WatchedLayer], widths: Mapping[str, Views], counts: Mapping[str, int], has_class: bool
) -> dict[str, Rows]:
    """Allocates the rows of all layers."""
    return {
        layer.path: Rows(widths[layer.path], counts[layer.path], layer.num_inputs, layer.width, has_class)
        for layer in layers
    }


def _gathered(rows: Mapping[str, Rows], capacities: Mapping[str, int], hooks: Watch, seen: int, flops: int) -> Watched:
    """What all processes saw, of as many samples each as the one with the fewest has."""
    lost_here = {path: store.lost for path, store in rows.items()}
    told = from_all((seen, flops, hooks.largest, hooks.positions, lost_here))
    count = min(number for number, *_ in told)
    lost = {path: {v: why for *_, theirs in told for v, why in theirs[path].items()} for path in rows}
    kept = {path: store for path, store in rows.items() if "features" not in lost[path]}
    return Watched(
        samples={
            path: everybodys(store.sample(min(count, store.capacity), tuple(lost[path])), capacities[path])
            for path, store in kept.items()
        },
        lost={path: reasons for path, reasons in lost.items() if reasons},
        largest={path: max(theirs.get(path, 0) for _, _, theirs, *_ in told) for path in hooks.largest},
        positions={path: max(theirs.get(path, 0) for *_, theirs, _ in told) for path in hooks.positions},
        flops=sum(number for _, number, *_ in told),
    )


def _run(
    model: nn.Module, inputs: Any, targets: Tensor, loss_function: LossFunction, hooks: Watch, has_gradients: bool
) -> None:
    """One forward, and where gradients are wanted one backward that stops at activations."""
    inputs, targets = tree_map(_normal, (inputs, targets))
    with told(f"{type(model).__name__}: forward", "Give inputs that the model accepts, or mend its forward."):
        outputs = ExampleInputs.of(inputs).call(model)
    if not has_gradients:
        return
    given = f"outputs {_shape(outputs)} and targets {_shape(targets)}"
    with told("the loss: it", f"Give a function of {given} that returns the mean loss."):
        loss = loss_function(outputs, targets)
    if not isinstance(loss, Tensor) or loss.numel() != 1 or loss.is_complex():
        found = f"a tensor {list(loss.shape)} of {loss.dtype}" if isinstance(loss, Tensor) else type(loss).__name__
        raise InputError(f"the loss: found {found}, needed a tensor with one real number. Return the mean.")
    check_finite("the loss", "value", loss)
    if loss.requires_grad:
        with told("the loss: its backward pass", "Mend what the message names."):
            torch.autograd.grad(loss, hooks.token, allow_unused=True)


def _normal(leaf: Any) -> Any:
    """Tensors made in inference mode cannot take part in a backward pass; copies of them can."""
    return leaf.clone() if isinstance(leaf, Tensor) and leaf.is_inference() else leaf


def _shape(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__


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
