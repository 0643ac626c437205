"""A plain loop with ``validate`` and a position that goes back with the model, as a user would write it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from contracts.state import raw
from neuroexapt.config import MorphogenesisConfig
from neuroexapt.events import VerdictReached
from neuroexapt.graph import in_mode
from neuroexapt.morphogenesis import Morphogenesis
from train.tiny import Record

STEPS, BATCH = 4, 8
INPUTS = torch.randn(96, 5, generator=torch.Generator().manual_seed(0))
TARGETS = (INPUTS[:, 0] * INPUTS[:, 1] > 0).long()
TRAINING, VALIDATION = slice(0, STEPS * BATCH), slice(STEPS * BATCH, 96)

SETTINGS: dict[str, Any] = {
    "triggers": ("interval",),
    "first_epoch": 1.0,
    "interval_epochs": 1.0,
    "cooldown_epochs": 0.0,
    "adapt_rate": 0.0,
    "edits_per_event": 1,
    "trial_epochs": 1.0,
    "min_trial_steps": 1,
    "cost_weight": 0.0,
    "risk_aversion": 0.0,
    "ban_epochs": 0.0,
    "overhead_fraction": None,
}


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(5, width), nn.BatchNorm1d(width), nn.Linear(width, 2)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.drop(torch.relu(self.norm(self.first(x)))))


class Position:
    """Where the loop stands; goes back with the model."""

    def __init__(self) -> None:
        self.epoch, self.step = 0, 0

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)


class StepLoop:
    """Trains, and keeps (arm, epoch, step, rows) of every step in ``trained``."""

    def __init__(
        self,
        *,
        model: nn.Module | None = None,
        validate: Callable[[], Tensor] | None = None,
        evidence: bool = False,
        epochs: int | None = None,
        seed: int = 1,
        **settings: Any,
    ) -> None:
        torch.manual_seed(seed)
        self.sink, self.at, self.trained = Record(), Position(), list[tuple[Any, ...]]()
        self.model = (model or Net()).train()
        self.optimizer = SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.scheduler = LambdaLR(self.optimizer, lambda epoch: 0.97**epoch)
        self.engine = Morphogenesis(
            self.model,
            self.optimizer,
            INPUTS[:BATCH],
            MorphogenesisConfig(**(SETTINGS | settings)),
            validate=validate or self.losses,
            stateful=[self.at, self.scheduler],
            sink=self.sink,
            epochs=epochs,
            steps_per_epoch=STEPS,
            evidence_batches=(lambda epoch: [(INPUTS[TRAINING], TARGETS[TRAINING])]) if evidence else None,
        )

    @torch.no_grad()
    def losses(self) -> Tensor:
        with in_mode(self.model, training=False):
            return F.cross_entropy(self.model(INPUTS[VALIDATION]), TARGETS[VALIDATION], reduction="none")

    def step(self) -> None:
        """One optimizer step, or the end of an epoch."""
        if self.at.step == STEPS:
            self.at.epoch, self.at.step = self.at.epoch + 1, 0
            self.scheduler.step()
            self.engine.after_epoch(float(self.losses().mean()))
            return
        order = torch.randperm(STEPS * BATCH, generator=torch.Generator().manual_seed(self.at.epoch))
        rows = order[self.at.step * BATCH : (self.at.step + 1) * BATCH]
        self.trained.append((self.engine.arm, self.at.epoch, self.at.step, rows.tolist()))
        loss = self._train(INPUTS[rows], TARGETS[rows])
        self.at.step += 1
        self.engine.after_step(loss)

    def until(self, epoch: int, step: int = 0) -> StepLoop:
        """Trains until the line that counts has come so far; no trial is under way then."""
        while (self.at.epoch, self.at.step) < (epoch, step) or self.engine.arm != "main":
            self.step()
        return self

    def verdicts(self) -> list[VerdictReached]:
        return self.sink.of(VerdictReached)

    def state(self) -> dict[str, Any]:
        """Everything that a step depends on."""
        named = {id(p): n for n, p in self.model.named_parameters()}
        return {
            "tensors": {k: raw(v) for k, v in self.model.state_dict().items()},
            "moments": {named[id(p)]: raw(s["momentum_buffer"]) for p, s in self.optimizer.state.items()},
            "members": [[named[id(p)] for p in g["params"]] for g in self.optimizer.param_groups],
            "rate": self.optimizer.param_groups[0]["lr"],
            "scheduler": self.scheduler.state_dict(),
            "position": self.at.state_dict(),
            "generator": raw(torch.get_rng_state()),
        }

    def _train(self, inputs: Tensor, targets: Tensor) -> float:
        """In a function of its own, so that no output or loss is still referred to."""
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(inputs), targets)
        loss.backward()
        self.optimizer.step()
        return loss.item()
