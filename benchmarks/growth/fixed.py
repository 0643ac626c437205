"""Arms without growth: a network of one size, for a number of steps or for the FLOPs that another arm spent."""

from __future__ import annotations

from typing import Any

from growth.outcome import outcome
from growth.task import Data, Sizes, Task
from growth.training import Course, built, flops_per_sample


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
    model = built(task, sizes, seed)
    cost = flops_per_sample(model, data)
    steps = task.steps if flops is None else max(1, flops // (3 * cost * task.batch_size))
    course = Course(task, data, seed, steps)
    optimizer = task.optimizer(model, task.learning_rate)
    while not course.is_over:
        course.train_step(model, optimizer, cost)
        course.report(model)
    return outcome(course, model, sizes)
