"""B2: an MLP on a subset of CIFAR-10, 768-32-32-10 grown to 768-128-128-10, ReLU; AdamW, batches of 128, 6 epochs.

20,000 training images, 2,000 for validation and 5,000 for testing, mean-pooled to 16 x 16 x 3.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import neuroexapt as nx
from growth.bars import Bar
from growth.suites.cifar import flat, pooled_cifar
from growth.task import Data, Sizes, Task


def _load() -> Data | str:
    return flat(pooled_cifar(20_000, 2_000, 5_000))


def _build(sizes: Sizes) -> nn.Module:
    first, second = sizes["0"], sizes["2"]
    return nn.Sequential(nn.Linear(768, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 10))


def _adamw(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)


CIFAR_MLP = Task(
    name="b2-cifar-mlp",
    title="B2, MLP on 20,000 images of CIFAR-10 at 16 x 16, 768-32-32-10 to 768-128-128-10",
    load=_load,
    build=_build,
    small={"0": 32, "2": 32},
    full={"0": 128, "2": 128},
    loss=partial(F.cross_entropy, reduction="none"),
    optimizer=_adamw,
    learning_rates=(0.0005, 0.001, 0.002, 0.004),
    learning_rate=0.002,
    warmup_steps=30,
    batch_size=128,
    steps=6 * (20_000 // 128),
    events=(0.03, 0.06, 0.75),
    ours=nx.MorphogenesisConfig(
        kinds=("Widen",),
        widen_ratio=1.32,
        triggers=("schedule",),
        schedule_epochs=(0.2, 0.4, 0.6, 0.8, 4.45),
        first_epoch=0.0,
        cooldown_epochs=0.0,
        ban_epochs=0.0,
        trial_epochs=0.05,
        min_trial_steps=5,
        cost_weight=0.0,
        risk_aversion=-3.0,  # the final size is known: an event stays unless it does clear harm
        max_parameter_ratio=4.6,
    ),
    num_deciding=500,
    seeds=5,
    peer={"container": "mlp", "inputs": 768, "classes": 10, "activation": "ReLU"},
    bars=(
        *(
            Bar(arm=arm, at_least=0.0, than=f"scratch = {arm}", max_flop_share=0.775, flops_of="scratch")
            for arm in ("ours", "scheduled")
        ),
        *(Bar(arm=arm, at_least=1.5, than=f"small = {arm}") for arm in ("ours", "scheduled")),
        Bar(arm="scheduled", at_least=0.5, than="optimizer rebuilt"),
        Bar(arm="ours", max_overhead=0.05),
    ),
)
