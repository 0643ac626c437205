"""Growth by a schedule with ``nx.Surgeon`` alone, and what becomes of it when one thing is changed.

Every event widens each axis of the task by the same number of units; nothing is tried, so nothing is thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import neuroexapt as nx
from growth.meter import GROWTH, SURGERY
from growth.outcome import outcome
from growth.task import Data, Task
from growth.training import Course, built, probe
from neuroexapt.graph import FlopCount

_MEASURED = 512  # training samples that informed units are chosen on


@dataclass(frozen=True, slots=True)
class Change:
    """What is done otherwise than by default: how units begin, and what becomes of the optimizer."""

    init: str = "zero_fan_out"
    rebuilds_optimizer: bool = False
    is_random: bool = False  # outgoing weights too: the function is not preserved


def grow_scheduled(task: Task, data: Data, seed: int, change: Change) -> dict[str, Any]:
    """Trains the small network and widens it on the way; returns the facts of a row."""
    course, model = Course(task, data, seed, task.num_growth_steps), built(task, task.small, seed)
    optimizer = task.optimizer(model, task.learning_rate)
    few = data.train.at(torch.arange(min(_MEASURED, len(data.train))))
    with course.meter.apart(GROWTH):
        objective = lambda m: task.loss(m(few.inputs), few.targets).mean()  # noqa: E731
        surgeon = nx.Surgeon(model, probe(data), optimizer, seed, objective=objective)
        with FlopCount(fakes=False) as count:  # the graph tests itself
            cost = surgeon.graph.cost.flops_per_sample
        course.meter.flops[SURGERY] += count.flops
    positions, events = [int(event * task.num_growth_steps) for event in task.events], []
    while not course.is_over:
        if course.position.step in positions[len(events) :]:
            with course.meter.apart(GROWTH):
                optimizer.zero_grad(set_to_none=True)
                events.append(_widen(course, surgeon, len(events) + 1, change))
                cost = surgeon.graph.cost.flops_per_sample
            if change.rebuilds_optimizer:
                optimizer = task.optimizer(model, task.learning_rate)
                surgeon.optimizers = (optimizer,)
        course.train_step(model, optimizer, cost)
        course.report(model)
    return outcome(course, model, task.full, events)


def _widen(course: Course, surgeon: nx.Surgeon, number: int, change: Change) -> dict[str, Any]:
    """Carries one event out; all that surgery computes with numbers counts, also the measuring for informed units."""
    largest, sizes = 0.0, course.task.sizes_after(number)
    for axis, size in sizes.items():
        with FlopCount(fakes=False) as count:
            patch = surgeon.apply(nx.Widen(axis=axis, to=size, init=change.init))
        course.meter.flops[SURGERY] += count.flops
        if change.is_random:
            _draw_silent_entries(surgeon.model, patch, course.seed)
        largest = max(largest, patch.output_change)
    surgeon.forget_patches()
    return {"step": course.position.step, "sizes": sizes, "output_change": largest}


def _draw_silent_entries(model: nn.Module, patch: nx.Patch, seed: int) -> None:
    """Draws the new matrix entries that are 0 at the root mean square of the old ones."""
    named, generator = dict(model.named_parameters()), torch.Generator().manual_seed(seed)
    for path, mask in patch.new_entries(model).items():
        weight = named[path].data
        if mask is None or weight.ndim < 2 or bool(weight[mask].any()):
            continue
        scale = weight[~mask].square().mean().sqrt()
        weight[mask] = scale * torch.randn(int(mask.sum()), generator=generator)
