"""The files in ``configs/`` say what they are meant to say."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from neuroexapt.config import GrowConfig, from_json, load_config
from neuroexapt.models import build_model
from neuroexapt.morphogenesis.policies import POLICIES
from neuroexapt.morphogenesis.triggers import TRIGGERS
from neuroexapt.surgery import MUTATIONS

FOLDER = Path(__file__).parents[2] / "configs"


def shipped(name: str) -> GrowConfig:
    return from_json(GrowConfig, load_config(GrowConfig, FOLDER / name))


def seed_network(config: GrowConfig) -> nn.Module:
    return build_model(config.model, in_channels=3, image_size=(32, 32), num_classes=10, seed=0)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_name_in_a_shipped_config_is_known(path: Path) -> None:
    growth = shipped(path.name).morphogenesis
    assert set(growth.kinds) <= set(MUTATIONS)
    assert set(growth.triggers) <= set(TRIGGERS)
    assert growth.policy in POLICIES


def test_the_cpu_profile_has_the_values_of_its_document() -> None:
    config = shipped("cpu-15gb.yaml")
    train, growth = config.train, config.morphogenesis
    assert (config.threads, train.epochs, train.batch_size, train.learning_rate) == (4, 40, 128, 0.05)
    assert (train.optimizer, growth.kinds, growth.first_epoch, growth.interval_epochs) == (
        "sgd",
        ("InsertLayer",),
        15,
        10,
    )
    assert (growth.need_threshold, growth.max_parameter_ratio) == (0.6, 1.5)
    network = seed_network(config)
    assert [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)] == [
        *(32, 64, 64, 128, 128, 256, 256)
    ]
    assert any(isinstance(module, nn.AdaptiveAvgPool2d) for module in network.modules())


def test_our_best_run_begins_with_less_than_a_hundred_thousand_parameters() -> None:
    network = seed_network(shipped("cifar10-best.yaml"))
    assert sum(parameter.numel() for parameter in network.parameters()) == 97_506
