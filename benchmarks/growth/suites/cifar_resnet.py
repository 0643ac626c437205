"""B3: a residual network of three blocks on a subset of CIFAR-10; all widths double, 16-32-64 to 32-64-128.

10,000 training images, 5,000 for validation and 10,000 for testing, mean-pooled to 16 x 16 x 3, shifted and mirrored.
The residual streams grow as well as the insides of blocks. The edits are exact, so they are made untried, once, where
the learning rate begins to fall; what is saved until then pays for a quarter more steps.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import neuroexapt as nx
from growth.bars import Bar
from growth.suites.cifar import pooled_cifar
from growth.task import Data, Sizes, Task
from neuroexapt.models import SmallResNet

_SHIFT = 2  # pixels, either way
_STAGES = {
    "stem.0": 1,
    "blocks.0.conv1": 1,
    "blocks.1.conv1": 2,
    "blocks.1.conv2": 2,
    "blocks.2.conv1": 4,
    "blocks.2.conv2": 4,
}


def _load() -> Data | str:
    return pooled_cifar(10_000, 5_000, 10_000)


def _sizes(width: int) -> dict[str, int]:
    return {axis: width * factor for axis, factor in _STAGES.items()}


def _build(sizes: Sizes) -> nn.Module:
    widths = [sizes["stem.0"], sizes["blocks.1.conv2"], sizes["blocks.2.conv2"]]
    return SmallResNet(in_channels=3, num_classes=10, widths=widths).to(memory_format=torch.channels_last)


def _shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Moves a batch by up to two pixels and mirrors half of it."""
    down, right = torch.randint(0, 2 * _SHIFT + 1, (2,), generator=generator).tolist()
    mirrored = torch.where(torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5, x.flip(-1), x)
    height, width = x.shape[2:]
    moved = F.pad(mirrored, [_SHIFT] * 4)[:, :, down : down + height, right : right + width]
    return moved.contiguous(memory_format=torch.channels_last)


def _sgd(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4)


_EPOCH = 10_000 // 128  # steps

CIFAR_RESNET = Task(
    name="b3-cifar-resnet",
    title="B3, ResNet of three blocks on 10,000 images of CIFAR-10 at 16 x 16, 16-32-64 to 32-64-128 channels",
    load=_load,
    build=_build,
    small=_sizes(16),
    full=_sizes(32),
    loss=partial(F.cross_entropy, reduction="none"),
    optimizer=_sgd,
    learning_rates=(0.1, 0.3),
    learning_rate=0.3,
    warmup_steps=50,
    hold=0.6,
    batch_size=128,
    steps=8 * _EPOCH,
    growth_steps=10 * _EPOCH,
    events=(0.6,),
    ours=nx.MorphogenesisConfig(
        kinds=("Widen",),
        widen_ratio=2.0,
        edits_per_event=6,
        triggers=("schedule",),
        schedule_epochs=(6.0,),
        first_epoch=0.0,
        trial_epochs=0.0,
        max_events=1,
    ),
    num_deciding=500,
    seeds=5,
    augment=_shifted,
    bars=(
        *(
            Bar(arm=arm, at_least=0.0, than="scratch", max_flop_share=0.7, flops_of="scratch")
            for arm in ("ours", "scheduled")
        ),
        Bar(arm="ours", max_overhead=0.05),
    ),
)
