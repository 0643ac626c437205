"""The optimizer and its learning rate, as pure functions of the configuration and the step."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from neuroexapt.config import TrainConfig

FINAL_FRACTION = 0.01  # of the peak learning rate, at the end of a cosine


def build_optimizer(config: TrainConfig, model: nn.Module) -> Optimizer:
    """Returns the optimizer with two groups: matrices and kernels decay, biases and norm parameters do not."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    if config.optimizer == "sgd":
        return SGD(groups, lr=config.learning_rate, momentum=config.momentum)
    return AdamW(groups, lr=config.learning_rate)


def learning_rate_at(config: TrainConfig, epoch: float) -> float:
    """Returns the learning rate after ``epoch`` (fractional) epochs of the run: linear warm-up, then the schedule.

    A function of the position alone: a resumed run, or one that goes back for a trial, needs no scheduler state.
    """
    peak = config.learning_rate
    if epoch < config.warmup_epochs:
        return peak * max(epoch / config.warmup_epochs, FINAL_FRACTION)
    if config.schedule == "constant":
        return peak
    length = max(config.epochs - config.warmup_epochs, 1e-9)
    progress = min((epoch - config.warmup_epochs) / length, 1.0)
    return peak * (FINAL_FRACTION + (1 - FINAL_FRACTION) * 0.5 * (1 + math.cos(math.pi * progress)))


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
