"""B1: the topology of gromo's ResNet container on 8 x 8 digits, as a plain module; only widths inside blocks grow.

A stem of 16 channels, then two stages of one pre-activation block each, with 16 and 32 channels at 8 x 8; the shortcut
of the second is norm, ReLU and a 1 x 1 convolution. Then norm, mean over positions and a linear layer.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import neuroexapt as nx
from growth.bars import Bar
from growth.suites.digits import digits
from growth.task import Data, Sizes, Task

_CHANNELS = (16, 16, 32)


class Block(nn.Module):
    """Norm, ReLU, convolution, norm, ReLU, convolution, beside a shortcut."""

    def __init__(self, before: int, hidden: int, after: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(hidden)
        self.conv1 = nn.Conv2d(before, hidden, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(hidden, after, 3, padding=1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if before != after:
            self.shortcut = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, after, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """[n, before, 8, 8] -> [n, after, 8, 8]."""
        hidden = self.conv1(F.relu(self.norm1(x)))
        return self.conv2(F.relu(self.norm2(hidden))) + self.shortcut(x)


class SmallResNet(nn.Module):
    """Stem, blocks, head."""

    def __init__(self, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, _CHANNELS[0], 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*map(Block, _CHANNELS, hidden, _CHANNELS[1:]))
        self.norm = nn.BatchNorm2d(_CHANNELS[-1])
        self.head = nn.Linear(_CHANNELS[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1, 8, 8] -> [n, 10]."""
        return self.head(F.relu(self.norm(self.blocks(self.stem(x)))).mean((2, 3)))


def _load() -> Data:
    return digits(1, 8, 8)


def _build(sizes: Sizes) -> nn.Module:
    return SmallResNet((sizes["blocks.0.conv1"], sizes["blocks.1.conv1"]))


def _adam(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=rate)


DIGITS_RESNET = Task(
    name="b1-digits-resnet",
    title="B1, ResNet of two blocks on handwritten digits, 4 to 16 channels inside each block",
    load=_load,
    build=_build,
    small={"blocks.0.conv1": 4, "blocks.1.conv1": 4},
    full={"blocks.0.conv1": 16, "blocks.1.conv1": 16},
    loss=partial(F.cross_entropy, reduction="none"),
    optimizer=_adam,
    learning_rates=(0.005, 0.01, 0.02, 0.04),
    learning_rate=0.02,
    warmup_steps=20,
    batch_size=64,
    steps=6 * 17,
    events=(0.05, 0.1, 0.15),
    ours=nx.MorphogenesisConfig(
        kinds=("Widen",),
        widen_ratio=2.0,
        triggers=("schedule",),
        schedule_epochs=(0.5, 1.0),
        first_epoch=0.0,
        cooldown_epochs=0.0,
        trial_epochs=0.2,
        min_trial_steps=3,
        cost_weight=0.0,
        risk_aversion=-3.0,  # an event stays unless it does clear harm
        max_flop_ratio=3.4,
        overhead_fraction=0.15,  # of 102 steps: 5 % would pay for no trial
    ),
    num_deciding=96,
    seeds=10,
    peer={
        "container": "resnet",
        "input_shape": (1, 8, 8),
        "classes": 10,
        "channels": 16,
        "recipe": {"steps": 168, "learning_rate": 0.003},
    },
    bars=(
        *(
            Bar(arm=arm, at_least=0.0, than=peer, max_flop_share=0.45, flops_of=peer, max_second_share=0.5)
            for arm in ("ours", "scheduled")
            for peer in ("gromo TINY", "gromo TINY, recipe")
        ),
        Bar(arm="ours", at_least=0.0, than="scratch = ours"),
        Bar(arm="ours", max_overhead=0.05),
    ),
)
