"""The optimizer and its learning rate, as pure functions of the configuration and the step."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from neuroexapt.config import TrainConfig


def build_optimizer(config: TrainConfig, model: nn.Module) -> Optimizer:
    """Returns the optimizer with two groups: matrices and kernels decay, biases and norm parameters do not."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    if config.optimizer == "sgd":
        return SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.nesterov)
    return AdamW(groups, lr=config.learning_rate)


def learning_rate_at(config: TrainConfig, epoch: float, last_growth: float | None = None) -> float:
    """Returns the learning rate after ``epoch`` (fractional) epochs of the run: linear warm-up, then the schedule.

    A function of the position alone: a resumed run, or one that goes back for a trial, needs no scheduler state.

    Args:
        config: Of the run.
        epoch: Position.
        last_growth: The last epoch in which the network may change. ``staged`` stays at the peak until then, so that
            all trials are made at one rate, and falls along a cosine in the stage of fine-tuning that follows.
    """
    peak, final = config.learning_rate, config.final_fraction
    if epoch < config.warmup_epochs:
        return peak * max(epoch / config.warmup_epochs, final)
    if config.schedule == "constant":
        return peak
    start = config.warmup_epochs
    if config.schedule == "staged" and last_growth is not None:
        start = max(start, last_growth)
    progress = min(max((epoch - start) / max(config.epochs - start, 1e-9), 0.0), 1.0)
    share = 1 - progress if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return peak * (final + (1 - final) * share)


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
