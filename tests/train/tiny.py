"""A run that takes a fraction of a second: 8 x 8 images whose class is the brightest quarter, and a small network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuroexapt.config import GrowConfig, MorphogenesisConfig, TrainConfig
from neuroexapt.data import DataSplits, LabelledImages, make_splits
from neuroexapt.events import Event, event_to_json
from neuroexapt.train import CheckpointStore

CLASSES = ("a", "b", "c", "d")
UNREPEATABLE = {  # a resumed run tells of its resumption
    "seconds",
    "seconds_by_purpose",
    "memory_bytes",
    "peak_memory_bytes",
    "measured_bytes",
    "num_events",
}


def images(count: int, seed: int) -> LabelledImages:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    pixels = torch.randint(0, 160, (count, 1, 8, 8), generator=generator)
    for index, label in enumerate(labels.tolist()):
        row, column = 4 * (label // 2), 4 * (label % 2)
        pixels[index, 0, row : row + 4, column : column + 4] += 40
    return LabelledImages(images=pixels.to(torch.uint8), labels=labels)


def data(num_train: int = 120, **parts: LabelledImages) -> DataSplits:
    splits = {"train": images(num_train, 1), "validation": images(60, 2), "test": images(40, 3)}
    return make_splits(name="quarters", class_names=CLASSES, **(splits | parts))


class TinyNet(nn.Module):
    """A convolution with batch norm and dropout, so that buffers and generators matter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(0.1)
        self.hidden = nn.Linear(48, 5)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x))).flatten(1)
        return self.head(torch.tanh(self.hidden(self.drop(x))))


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return TinyNet()


def config(train: dict[str, Any] | None = None, morphogenesis: dict[str, Any] | None = None) -> GrowConfig:
    """Events begin after epochs 2 and 5; whatever is tried lowers the loss by min_gain = 0 or goes."""
    growth: dict[str, Any] = {
        "triggers": ("interval",),
        "interval_epochs": 2,
        "first_epoch": 2,
        "cooldown_epochs": 0,
        "adapt_rate": 0,
        "kinds": ("Widen",),
        "widen_ratio": 1.5,
        "edits_per_event": 1,
        "max_events": 6,
        "trial_epochs": 1,
        "overhead_fraction": None,
        "cost_weight": 0,
        "risk_aversion": 0,
        "evidence_samples": 32,
        "score_fraction": 0.5,
    }
    return GrowConfig(
        seed=3,
        device="cpu",
        train=TrainConfig(**({"epochs": 8, "batch_size": 24, "learning_rate": 0.01} | (train or {}))),
        morphogenesis=MorphogenesisConfig(**(growth | (morphogenesis or {}))),
    )


class Record:
    """A sink that remembers everything."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def send(self, event: Event) -> None:
        self.events.append(event)

    def rewind(self, num_events: int) -> None:
        del self.events[num_events:]

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def facts(self, *without: str) -> list[dict[str, Any]]:
        """Everything that another run must repeat: times, memory and some kinds of events left out."""
        records = [event_to_json(event) for event in self.events]
        kept = [record for record in records if record["event"] not in without]
        return [json.loads(json.dumps({k: v for k, v in r.items() if k not in UNREPEATABLE})) for r in kept]


def final_state(run_dir: Path) -> tuple[dict[str, dict[str, bytes]], dict[str, Any]]:
    """Bytes of every tensor and all repeatable state of a run's newest checkpoint."""
    payload = CheckpointStore(run_dir / "checkpoints").newest().payload
    del payload.state["engine"]["ledger"]["seconds"]
    tensors = {stem: {name: raw(tensor) for name, tensor in group.items()} for stem, group in payload.tensors.items()}
    return tensors, {key: value for key, value in payload.state.items() if key not in UNREPEATABLE}


def raw(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


def weights(model: nn.Module) -> dict[str, bytes]:
    return {name: raw(tensor) for name, tensor in model.state_dict().items()}
