"""B1: a thin MLP on handwritten digits, 64-4-4-10 grown to 64-16-16-10, SELU; Adam, batches of 64."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import neuroexapt as nx
from growth.suites.digits import digits
from growth.task import Data, Sizes, Task


def _load() -> Data:
    return digits(64)


def _build(sizes: Sizes) -> nn.Module:
    first, second = sizes["0"], sizes["2"]
    return nn.Sequential(nn.Linear(64, first), nn.SELU(), nn.Linear(first, second), nn.SELU(), nn.Linear(second, 10))


def _adam(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=rate)


DIGITS_MLP = Task(
    name="b1-digits-mlp",
    title="B1, MLP on handwritten digits, 64-4-4-10 to 64-16-16-10",
    load=_load,
    build=_build,
    small={"0": 4, "2": 4},
    full={"0": 16, "2": 16},
    loss=partial(F.cross_entropy, reduction="none"),
    optimizer=_adam,
    learning_rates=(0.003, 0.01, 0.02, 0.03, 0.05, 0.1),
    learning_rate=0.03,
    warmup_steps=20,
    batch_size=64,
    steps=19 * 17,
    events=(0.05, 0.1, 0.15),
    ours=nx.MorphogenesisConfig(
        kinds=("Widen",),
        widen_ratio=2.0,
        first_epoch=1.0,
        interval_epochs=1.0,
        min_trial_steps=4,
        risk_aversion=-2.0,
        max_parameter_ratio=4.55,
    ),
    seeds=10,
    peer={
        "container": "mlp",
        "inputs": 64,
        "classes": 10,
        "activation": "SELU",
        "recipe": {"steps": 504, "learning_rate": 0.003},
    },
)
