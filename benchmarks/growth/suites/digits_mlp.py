"""B1: a thin MLP on handwritten digits, 64-4-4-10 grown to 64-16-16-10, SELU; Adam, batches of 64."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import neuroexapt as nx
from growth.bars import Bar
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
        triggers=("schedule", "interval"),  # the second tries again where a trial was rolled back
        schedule_epochs=(1.0, 3.0),
        first_epoch=0.0,
        cooldown_epochs=0.0,
        ban_epochs=0.0,
        trial_epochs=0.2,
        min_trial_steps=2,
        cost_weight=0.0,
        risk_aversion=-3.0,  # the final size is known: an event stays unless it does clear harm
        max_parameter_ratio=4.55,
    ),
    num_deciding=64,
    seeds=10,
    peer={
        "container": "mlp",
        "inputs": 64,
        "classes": 10,
        "activation": "SELU",
        "recipe": {"steps": 504, "learning_rate": 0.003},
    },
    bars=(
        *(Bar(arm=arm, at_least=95.3, max_gflop=0.166) for arm in ("ours", "scheduled")),
        Bar(arm="ours", at_least=0.0, than="gromo TINY"),
        Bar(arm="ours", at_least=0.0, than="scratch = ours"),
        Bar(arm="ours", max_overhead=0.05),
    ),
)

DIGITS_MLP_LONGER = replace(
    DIGITS_MLP,
    name="b1-digits-mlp-longer",
    title="B1, the same MLP with the FLOPs of gromo's recipe for TINY",
    steps=27 * 17,
    peer={},
    bars=tuple(Bar(arm=arm, at_least=96.5, max_gflop=0.246) for arm in ("ours", "scheduled")),
)
