"""Arm E: ``nx.Morphogenesis`` in a plain loop. What a user adds to training is the engine and its two calls.

FLOPs are the engine's own ledger: training, the arms of trials that were thrown away, proposals, verification and the
validation that decided.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor

import neuroexapt as nx
from growth.meter import GROWTH
from growth.outcome import outcome
from growth.task import Data, Task
from growth.training import Course, built, measure, probe
from neuroexapt.events import Event, VerdictReached
from neuroexapt.surgery.growth.widening import group_at

_KEPT = ("position", "description", "accepted", "relative_gain", "low", "high", "cost", "trial_steps", "reason")


def grow_ours(task: Task, data: Data, seed: int, config: nx.MorphogenesisConfig) -> dict[str, Any]:
    """Trains the small network and lets the engine grow it; returns the facts of a row."""
    course, model, verdicts = Course(task, data, seed, task.num_growth_steps), built(task, task.small, seed), Verdicts()
    optimizer = task.optimizer(model, task.learning_rate)
    deciding = data.validation.at(torch.arange(min(task.num_deciding, len(data.validation))))

    def evidence(epoch: int) -> list[tuple[Tensor, Tensor]]:
        return [course.evidence(config.evidence_samples, epoch)]

    with course.meter.apart(GROWTH):
        engine = nx.Morphogenesis(
            model,
            optimizer,
            probe(data),
            config,
            validate=lambda: measure(task, model, deciding)[0],
            num_validation=len(deciding),
            seed=seed,
            stateful=[course.position],
            epochs=math.ceil(task.num_growth_steps / course.steps_per_epoch),
            steps_per_epoch=course.steps_per_epoch,
            batch_size=task.batch_size,
            evidence_batches=evidence if config.policy != "uniform" else None,
            loss_function=lambda outputs, targets: task.loss(outputs, targets).mean(),
            sink=verdicts,
        )
    while not course.is_over:
        loss = course.train_step(model, optimizer, 0)  # the engine counts
        step = course.position.step
        with course.meter.apart(GROWTH):
            engine.after_step(loss)
            if course.position.step == step and step % course.steps_per_epoch == 0:  # not where it has just gone back
                engine.after_epoch()
        course.meter.flops = Counter(engine.ledger.flops)
        if engine.arm == "main":
            course.report(model)
    graph = engine.surgeon.graph
    facts = outcome(course, model, {axis: group_at(graph, axis).size for axis in task.small}, verdicts.told)
    return facts | {"lineage": engine.surgeon.lineage.to_json()}


class Verdicts:
    """A sink that keeps what became of each event."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def send(self, event: Event) -> None:
        """Keeps verdicts."""
        if isinstance(event, VerdictReached):
            self.told.append({name: getattr(event, name) for name in _KEPT})

    def rewind(self, num_events: int) -> None:
        """No run is resumed here."""
