"""A key that does nothing is a defect: another value of any setting gives another run.

Those of morphogenesis are in ``morphogenesis/test_every_field_counts.py``.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from neuroexapt.analysis import measure_evidence
from neuroexapt.config import EvidenceConfig, TrainConfig
from neuroexapt.errors import NonFiniteLossError
from neuroexapt.events import event_to_json
from neuroexapt.train import Trainer
from train.tiny import UNREPEATABLE, Record, config, data, network

TRAIN: dict[str, tuple[Any, dict[str, Any]]] = {  # field -> (other value, what must be set besides)
    "epochs": (5, {}),
    "epoch_samples": (60, {}),
    "batch_size": (30, {}),
    "optimizer": ("sgd", {}),
    "learning_rate": (0.02, {}),
    "weight_decay": (0.5, {}),
    "momentum": (0.5, {"optimizer": "sgd"}),
    "nesterov": (True, {"optimizer": "sgd"}),
    "warmup_epochs": (2.0, {}),
    "schedule": ("constant", {}),
    "final_fraction": (0.5, {}),
    "precision": ("bfloat16", {}),
    "clip_norm": (0.1, {}),
    "label_smoothing": (0.2, {}),
    "checkpoint_every": (2, {}),
    "max_seconds": (1e-6, {}),
}
EVIDENCE: dict[str, Any] = {"num_samples": 32, "max_bytes_per_layer": 3000, "estimators": ()}


@cache
def told(train: tuple[tuple[str, Any], ...]) -> str:
    record = Record()
    settings = config({"epochs": 7} | dict(train), {"first_epoch": 1})
    Trainer(settings, sinks=[record]).fit(network(), data(), resume=False)
    events = [event_to_json(event) for event in record.events[1:]]  # the first one tells the settings themselves
    return repr([{k: v for k, v in event.items() if k not in UNREPEATABLE} for event in events])


def test_every_field_is_in_the_tables_above() -> None:
    assert TRAIN.keys() == {f.name for f in fields(TrainConfig)} - {"max_bad_batches", "channels_last"}
    assert EVIDENCE.keys() == {f.name for f in fields(EvidenceConfig)}


@pytest.mark.parametrize("name", EVIDENCE)
def test_every_setting_of_evidence_changes_what_is_measured(name: str) -> None:
    split = data().train
    batches = [(split.images[:64].float(), split.labels[:64])]
    default, other = (
        measure_evidence(network(), batches, config=EvidenceConfig(**settings))
        for settings in ({"estimators": ("saturation",)}, {"estimators": ("saturation",), name: EVIDENCE[name]})
    )
    assert default.layers != other.layers


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAIN)
def test_every_setting_of_training_changes_the_run(name: str) -> None:
    value, besides = TRAIN[name]
    assert told(tuple(besides.items())) != told((*besides.items(), (name, value)))


@pytest.mark.parametrize("max_bad_batches", [1, 4])
def test_the_run_ends_after_so_many_bad_batches(max_bad_batches: int) -> None:
    class Diverged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 4)
            self.calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            output = self.layer(x.flatten(1))
            return output * float("nan") if self.training and len(x) == 24 else output

    with pytest.raises(NonFiniteLossError, match=rf"{max_bad_batches} batches in a row"):
        Trainer(config({"max_bad_batches": max_bad_batches})).fit(Diverged(), data())
