"""gromo 0.1.0, the peer: the same network in its classes, on the same data, order, events and learning rates.

It runs where gromo can be imported, in an environment beside ours; the project never depends on it. Its optimizer is
rebuilt after each growth, because it replaces the parameters that it grows. FLOPs of its growth are those of its
statistics pass (forward and backward) and of the forward passes of its line search; what the statistics themselves and
the decompositions take is left out, in its favour.
"""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from growth.meter import GROWTH, STATISTICS
from growth.outcome import outcome
from growth.task import Data, Task
from growth.training import Course, probe

LINE_SEARCH, _SCALES = "line search", (0.1, 0.5, 1.0)
_CHUNK = 512
_UPDATES: dict[str, dict[str, Any]] = {
    "TINY": {"compute_delta": False, "use_covariance": True, "use_projection": True},
    "GradMax": {
        "compute_delta": False,
        "use_covariance": False,
        "alpha_zero": True,
        "use_projection": False,
        "ignore_singular_values": True,
    },
}
_PAIRS = {"neuron_pairing": "vv_z_negz", "rescaling": "default_vt", "noise_ratio": 0.0}


def import_peer() -> None:
    """Imports what it needs, so that this is no run's time."""
    import gromo.containers.growing_mlp
    import gromo.containers.resnet
    import gromo.utils.training_utils  # noqa: F401


def grow_by_recipe(task: Task, data: Data, seed: int, method: str) -> dict[str, Any]:
    """The same as its tutorials go about it: three events, equally far apart, at a constant learning rate."""
    recipe = dataclasses.replace(task, events=(0.25, 0.5, 0.75), warmup_steps=1, **task.peer["recipe"])
    return grow_by_gromo(recipe, data, seed, method, is_constant=True)


def grow_by_gromo(task: Task, data: Data, seed: int, method: str, is_constant: bool = False) -> dict[str, Any]:
    """Trains the small network and grows it by "TINY", "GradMax", "VT" or "random" at the events of the task."""
    torch.manual_seed(1000 + seed)
    model = _built(task).train()
    course, cost = Course(task, data, seed, task.steps, is_constant), counted_flops(model, probe(data, 1))
    optimizer = task.optimizer(model, task.learning_rate)
    positions, events = [int(event * task.steps) for event in task.events], []
    while not course.is_over:
        if course.position.step in positions[len(events) :]:
            with course.meter.apart(GROWTH):
                _grow(course, model, len(events) + 1, method, cost)
                cost = counted_flops(model, probe(data, 1))
                optimizer = task.optimizer(model, task.learning_rate)
                events.append({"step": course.position.step, "sizes": _sizes(task, model)})
        course.train_step(model, optimizer, cost)
        course.report(model)
    return outcome(course, model, _sizes(task, model), events) | {"peer": f"gromo {version('gromo')}"}


def counted_flops(model: nn.Module, inputs: Tensor) -> int:
    """Returns the FLOPs of one forward pass in linear layers and convolutions, a multiply-add as two."""
    found: list[int] = []

    def count(module: nn.Module, _: Any, output: Tensor) -> None:
        weight = module.weight
        positions = output.numel() // weight.shape[0]
        found.append(2 * positions * weight.numel())

    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    handles = [layer.register_forward_hook(count) for layer in layers]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        model(inputs)
    model.train(was_training)
    for handle in handles:
        handle.remove()
    return sum(found)


def _built(task: Task) -> nn.Module:
    from gromo.containers.growing_mlp import GrowingMLP
    from gromo.containers.resnet import init_full_resnet_structure

    width = next(iter(task.small.values()))
    if task.peer["container"] == "mlp":
        activation = getattr(nn, task.peer["activation"])()
        return GrowingMLP(task.peer["inputs"], task.peer["classes"], width, len(task.small), activation=activation)
    return init_full_resnet_structure(
        input_shape=task.peer["input_shape"],
        out_features=task.peer["classes"],
        small_inputs=True,
        inplanes=task.peer["channels"],
        nb_stages=len(task.small),
        number_of_blocks_per_stage=1,
        hidden_channels=(width,) * len(task.small),
        normalization="batch",
    )


def _sizes(task: Task, model: Any) -> dict[str, int]:
    if task.peer["container"] == "mlp":
        widths = [layer.layer.out_features for layer in model.layers]
    else:
        widths = [block.hidden_neurons for block in model._growable_layers]
    return dict(zip(task.small, widths, strict=False))


def _grow(course: Course, model: Any, number: int, method: str, cost: int) -> None:
    """Grows every axis in turn, as its tutorials do."""
    wanted, now = course.task.sizes_after(number), course.task.sizes_after(number - 1)
    for index, axis in enumerate(wanted):
        model.set_growing_layers(index=index)
        added = wanted[axis] - now[axis]
        if method in _UPDATES:
            _grow_by_statistics(course, model, added, method, cost)
        else:
            _grow_at_random(model, course.task.peer["container"], added, _PAIRS if method == "VT" else {})
        cost = counted_flops(model, probe(course.data, 1))


def _grow_by_statistics(course: Course, model: Any, added: int, method: str, cost: int) -> None:
    """Statistics, decomposition, line search on the scale, change."""
    from gromo.utils.training_utils import compute_statistics, evaluate_model

    train = course.data.train
    batches = list(zip(train.inputs.split(_CHUNK), train.targets.split(_CHUNK), strict=True))
    compute_statistics(model, batches, loss_function=nn.CrossEntropyLoss(reduction="sum"))
    course.meter.flops[STATISTICS] += 3 * len(train) * cost
    model.compute_optimal_updates(maximum_added_neurons=added, **_UPDATES[method])
    model.reset_computation()
    model.dummy_select_update()

    def loss_at(scale: float) -> float:
        model.set_scaling_factor(scale)
        course.meter.flops[LINE_SEARCH] += len(train) * cost
        return float(evaluate_model(model, batches, nn.CrossEntropyLoss(), use_extended_model=True)[0])

    model.set_scaling_factor(min(_SCALES, key=loss_at))
    model.apply_change()
    model.train()


def _grow_at_random(model: Any, container: str, added: int, options: dict[str, Any]) -> None:
    layer = model._growing_layers[0]
    layer.create_layer_extensions(
        extension_size=added, output_extension_init="kaiming", input_extension_init="kaiming", **options
    )
    model.set_scaling_factor(1.0)
    if container == "mlp":
        layer.apply_change(extension_size=added, scaling_factor=1.0)
        layer.delete_update(include_previous=True)
    else:
        layer.apply_change(extension_size=added)
        layer.delete_update()
