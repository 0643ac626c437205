"""Arms without growth: a network of one size, for a number of steps or for the FLOPs that another arm spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import neuroexapt as nx
from growth.outcome import outcome
from growth.task import Data, Sizes, Task
from growth.training import Course, built, flops_per_sample, probe


def train_fixed(task: Task, data: Data, seed: int, sizes: Sizes, flops: int | None = None) -> dict[str, Any]:
    """Trains from scratch.

    Args:
        task: What is trained.
        data: Its data.
        seed: Of weights and order.
        sizes: Of the network.
        flops: How much may be spent; ``task.steps`` steps without it.

    Returns:
        The facts of a row.
    """
    return _train(task, data, seed, built(task, sizes, seed), sizes, flops)


def train_final(task: Task, data: Data, seed: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """Trains the network that another arm ended with from scratch, for the FLOPs that it spent; returns the facts.

    Args:
        task: What is trained.
        data: Its data.
        seed: Of weights and order.
        row: Of the other arm. Where it tells its lineage, the small network is edited likewise and all is drawn anew.
    """
    if "lineage" not in row:
        return train_fixed(task, data, seed, row["sizes"], row["total_flops"])
    model = built(task, task.small, seed)
    nx.replay(model, nx.Lineage.from_json(row["lineage"]), probe(data))
    torch.manual_seed(1000 + seed)
    task.draw(model)
    return _train(task, data, seed, model, row["sizes"], row["total_flops"])


def _train(task: Task, data: Data, seed: int, model: nn.Module, sizes: Sizes, flops: int | None) -> dict[str, Any]:
    cost = flops_per_sample(model, data)
    steps = task.steps if flops is None else max(1, flops // (3 * cost * task.batch_size))
    course = Course(task, data, seed, steps)
    optimizer = task.optimizer(model, task.learning_rate)
    while not course.is_over:
        course.train_step(model, optimizer, cost)
        course.report(model)
    return outcome(course, model, sizes)
