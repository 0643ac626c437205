"""What growth may cost: limits relative to the seed network, refused before anything is allocated."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import nn

from neuroexapt.config import MorphogenesisConfig
from neuroexapt.resources import MemoryGauge
from neuroexapt.surgery import Budget, Surgeon

logger = logging.getLogger(__name__)


def budget_of(config: MorphogenesisConfig, seed_parameters: int, seed_flops: int, batch_size: int | None) -> Budget:
    """Returns the limits for what grows from a seed network.

    Args:
        config: Its ratios, and its bytes.
        seed_parameters: Of the seed network.
        seed_flops: Forward FLOPs of the seed network, per sample.
        batch_size: Samples in one training step.
    """
    return Budget(
        parameters=int(seed_parameters * config.max_parameter_ratio),
        flops_per_sample=max(int(seed_flops * config.max_flop_ratio), 1),
        bytes=config.max_bytes,
        batch_size=batch_size,
    )


def calibrate(config: MorphogenesisConfig, surgeon: Surgeon, gauge: MemoryGauge | None) -> None:
    """Corrects the limit of bytes by what steps of the model as it is took beyond their prediction.

    The difference is added to every prediction (the allocator's rounding, kernels' scratch, what else lives on the
    device), so it is taken off the limit. Only on CUDA, whose allocator counts its own bytes: what a process on CPU
    holds says nothing of a step.

    Args:
        config: With ``max_bytes``, or nothing is done.
        surgeon: Its budget is corrected.
        gauge: Of the device since the run began; ``None`` where there is none that could be trusted.
    """
    if config.max_bytes is None or gauge is None or surgeon.budget is None:
        return
    predicted = surgeon.forecast(batch_size=surgeon.budget.batch_size).peak_bytes
    beyond = max(gauge.grown_bytes() - predicted, 0)
    surgeon.budget = replace(surgeon.budget, bytes=max(config.max_bytes - beyond, 1))
    logger.info("a training step took %d bytes more than predicted; so many are taken off max_bytes", beyond)


def gauge_of(model: nn.Module) -> MemoryGauge | None:
    """Returns what measures the memory of a model's steps: on CUDA its allocator, elsewhere nothing."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return MemoryGauge(device) if device.type == "cuda" else None
