"""What is kept of a run that is over."""

from __future__ import annotations

from typing import Any

from torch import nn

from growth.task import Sizes
from growth.training import Course, measure


def outcome(course: Course, model: nn.Module, sizes: Sizes, events: list[Any] | None = None) -> dict[str, Any]:
    """Measures the model for the last time and returns the facts of its row."""
    discarded = 1 - course.position.step / course.num_steps_made
    facts = course.meter.facts(discarded)  # first: what follows is in no budget
    validation_loss, validation_score = measure(course.task, model, course.data.validation)
    loss, score = measure(course.task, model, course.data.test)
    return {
        "score": round(score.mean().item(), 4),
        "loss": round(loss.mean().item(), 5),
        "validation_score": round(validation_score.mean().item(), 4),
        "validation_loss": round(validation_loss.mean().item(), 5),
        "parameters": sum(p.numel() for p in model.parameters()),
        "sizes": dict(sizes),
        "steps": course.position.step,
        "events": events or [],
        **facts,
    }
