"""Training that all arms share: order of the data, learning rate, step, and what is measured of a model."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import neuroexapt as nx
from growth.meter import REPORTING, TRAINING, Meter
from growth.task import Data, Sizes, Split, Task

FLOOR = 0.01  # of the peak learning rate, at the end of the cosine
CURVE_POINTS = 16
_CHUNK = 1000  # samples of one forward pass that measures


class Position:
    """Where a run is. It goes back with the model when a trial begins or is undone, and the data with it."""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, Any]:
        """Returns the step."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to a step."""
        self.step = state["step"]


class Course:
    """One run of training: batches and learning rate are functions of seed and position alone, the same in every arm.

    Args:
        task: What is trained.
        data: All of it is in memory.
        seed: Of the order of the data.
        steps: Where the cosine ends.
        is_constant: No cosine; for what is reproduced as others do it.
    """

    def __init__(self, task: Task, data: Data, seed: int, steps: int, is_constant: bool = False) -> None:
        self.task, self.data, self.seed, self.steps = task, data, seed, steps
        self._is_constant = is_constant
        self.position, self.meter = Position(), Meter()
        self.steps_per_epoch = len(data.train) // task.batch_size
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))
        self._next_point = 0
        self.num_steps_made = 0  # also those of arms that were thrown away

    @property
    def is_over(self) -> bool:
        """Whether the last step was made."""
        return self.position.step >= self.steps

    def learning_rate(self) -> float:
        """Linear warm-up, the peak, then the cosine to the end of this arm's own steps."""
        step, hold = self.position.step, self.task.hold
        annealed = max(0.0, step / self.steps - hold) / (1 - hold)
        cosine = 1.0 if self._is_constant else 0.5 * (1 + math.cos(math.pi * annealed))
        return self.task.learning_rate * min(1.0, (step + 1) / self.task.warmup_steps) * (cosine * (1 - FLOOR) + FLOOR)

    def batch(self) -> Split:
        """Returns the batch of this position."""
        epoch, index = divmod(self.position.step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = epoch, torch.randperm(len(self.data.train), generator=_stream(self.seed, 0, epoch))
        size = self.task.batch_size
        found = self.data.train.at(self._order[1][index * size : (index + 1) * size])
        if self.task.augment is None:
            return found
        return Split(self.task.augment(found.inputs, _stream(self.seed, 1, self.position.step)), found.targets)

    def evidence(self, num_samples: int, epoch: int) -> tuple[Tensor, Tensor]:
        """Returns training samples for scores, others in every epoch."""
        rows = torch.randperm(len(self.data.train), generator=_stream(self.seed, 2, epoch))[:num_samples]
        found = self.data.train.at(rows)
        return found.inputs, found.targets

    def train_step(self, model: nn.Module, optimizer: Optimizer, flops_per_sample: int) -> float:
        """Makes one optimizer step, counts it, and goes on; returns its loss."""
        rate = self.learning_rate()
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = self.batch()
        loss = self.task.loss(model(batch.inputs), batch.targets).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        self.position.step += 1
        self.num_steps_made += 1
        self.meter.flops[TRAINING] += 3 * flops_per_sample * len(batch)
        return loss.item()

    def report(self, model: nn.Module) -> None:
        """Adds a point to the curve where one is due; it is in no budget and decides nothing."""
        if self.position.step < self._next_point and not self.is_over:
            return
        self._next_point = self.position.step + max(1, self.steps // CURVE_POINTS)
        with self.meter.apart(REPORTING):
            _, score = measure(self.task, model, self.data.test)
            self.meter.curve.append((self.meter.total_flops, score.mean().item()))


def measure(task: Task, model: nn.Module, split: Split) -> tuple[Tensor, Tensor]:
    """Returns the loss and the score of every sample, in eval mode without gradients."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        chunks = [
            (task.loss(out, targets), task.score.of(out, targets))
            for inputs, targets in zip(split.inputs.split(_CHUNK), split.targets.split(_CHUNK), strict=True)
            for out in [model(inputs)]
        ]
    model.train(was_training)
    losses, scores = zip(*chunks, strict=True)
    return torch.cat(losses), torch.cat(scores)


def built(task: Task, sizes: Sizes, seed: int) -> nn.Module:
    """Returns the network of these sizes with the weights of a seed."""
    torch.manual_seed(1000 + seed)
    return task.build(sizes).train()


def probe(data: Data, num_samples: int = 16) -> Tensor:
    """Returns the training inputs that a model is traced and edits are verified on."""
    return data.train.inputs[:num_samples]


def flops_per_sample(model: nn.Module, data: Data) -> int:
    """Forward FLOPs of one sample, by ``nx.trace``: a multiply-add is two."""
    return nx.trace(model, probe(data, 2)).cost.flops_per_sample


def _stream(seed: int, purpose: int, position: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 3 + purpose) * 1_000_003 + position)
