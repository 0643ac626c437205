"""A small residual network trained on CIFAR-10, kept in a folder: what ``pruning.py`` prunes.

174 thousand parameters: a stem with stride 2 and two basic blocks each of 16, 32 and 64 channels. A run that is stopped
goes on at its last epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroexapt.config import DataConfig
from neuroexapt.data import DataSplits, LabelledImages, load_data

WIDTHS = (16, 32, 64)
BATCH = 128


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch norms beside a shortcut."""

    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != out:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, out, H / stride, W / stride]``."""
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + self.shortcut(x))


def small_resnet() -> nn.Sequential:
    """Returns the network with random weights."""
    layers: list[nn.Module] = [nn.Conv2d(3, WIDTHS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()]
    inside = WIDTHS[0]
    for out in WIDTHS:
        layers += [Block(inside, out, 1 if out == inside else 2), Block(out, out, 1)]
        inside = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 10))


@dataclass(frozen=True)
class Data:
    """Normalised images: those that train, and those that only test."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


def load(source: str) -> Data:
    """Reads both splits; validation images go back to those that train: nothing is chosen by them here."""
    splits = load_data(DataConfig(source=source), seed=0)
    x = torch.cat([_normalised(splits, splits.train), _normalised(splits, splits.validation)])
    y = torch.cat([splits.train.labels, splits.validation.labels])
    return Data(x, y, _normalised(splits, splits.test), splits.test.labels)


def _normalised(splits: DataSplits, part: LabelledImages) -> Tensor:
    return torch.cat([splits.normalise(images) for images in part.images.split(5000)])


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Fraction of images that are classified as labelled, in eval mode."""
    model.eval()
    with torch.no_grad():
        hits = [(model(a).argmax(1) == b).sum() for a, b in zip(x.split(1000), y.split(1000), strict=True)]
    return float(torch.stack(hits).sum()) / len(y)


def trained(data: Data, folder: Path, epochs: int, seed: int) -> nn.Sequential:
    """Returns the network after ``epochs`` of SGD; what is in ``folder`` is not trained again."""
    torch.manual_seed(seed)
    model, path = small_resnet(), folder / f"small_resnet-{seed}.pt"
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    num_steps = len(data.y) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.4, total_steps=epochs * num_steps, pct_start=0.2)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    start = 0
    if path.exists():
        kept = torch.load(path, weights_only=True)
        start = kept.pop("epochs")
        for name, state in kept.items():
            parts[name].load_state_dict(state)
    for epoch in range(start, epochs):
        _epoch(model, optimizer, schedule, data, epoch)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({"epochs": epoch + 1, **{k: part.state_dict() for k, part in parts.items()}}, path)
        print(f"epoch {epoch + 1}: test accuracy {accuracy(model, data.test_x, data.test_y):.4f}", flush=True)
    return model.eval()


def _epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    data: Data,
    epoch: int,
) -> None:
    generator = torch.Generator().manual_seed(epoch)
    model.train()
    for rows in torch.randperm(len(data.y), generator=generator).split(BATCH)[: len(data.y) // BATCH]:
        loss = F.cross_entropy(model(_moved(data.x[rows], generator)), data.y[rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shifts a batch by up to four pixels and mirrors half of it."""
    down, right = torch.randint(-4, 5, (2,), generator=generator).tolist()
    mirrored = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    padded = F.pad(torch.where(mirrored, x.flip(-1), x), (4, 4, 4, 4))
    return padded[:, :, 4 + down : 36 + down, 4 + right : 36 + right]
