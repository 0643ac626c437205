import dataclasses
import json
from typing import get_type_hints

import pytest
from pydantic import ValidationError

from neuroexapt.config import (
    AugmentConfig,
    DataConfig,
    GrowConfig,
    ModelConfig,
    MorphogenesisConfig,
    TrainConfig,
    from_json,
    to_json,
)

CONFIGS = (AugmentConfig, DataConfig, GrowConfig, ModelConfig, MorphogenesisConfig, TrainConfig)

# a value that is allowed and is not the default, for every setting that has another one
OTHER = {
    DataConfig: {"source": "images", "validation_fraction": 0.3, "test_fraction": 0.1, "limit": 7},
    AugmentConfig: {"flip": "random", "crop_padding": 4},
    ModelConfig: {"source": "a.b:c", "options": {"width": 3, "names": ["a", None], "deep": {"x": 1.5}}},
    TrainConfig: {
        "epochs": 3,
        "epoch_samples": 40,
        "batch_size": 5,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "weight_decay": 0.0,
        "momentum": 0.5,
        "nesterov": True,
        "warmup_epochs": 0.5,
        "schedule": "constant",
        "final_fraction": 0.1,
        "clip_norm": None,
        "label_smoothing": 0.1,
        "precision": "bfloat16",
        "channels_last": True,
        "checkpoint_every": 4,
        "max_bad_batches": 9,
        "max_seconds": 1.5,
    },
    MorphogenesisConfig: {
        "kinds": ("Widen",),
        "widen_ratio": 1.25,
        "edits_per_event": 1,
        "triggers": ("schedule",),
        "first_epoch": 0,
        "last_epoch": 2.5,
        "interval_epochs": 5,
        "schedule_epochs": (1, 2.5),
        "plateau_epochs": 7,
        "plateau_min_slope": 0.0,
        "need_threshold": 0.5,
        "cooldown_epochs": 0,
        "adapt_rate": 0,
        "target_success": 0.2,
        "policy": "scheduled",
        "sequence": ("Widen",),
        "experience": "experience.json",
        "score": "tiny",
        "score_fraction": 0.5,
        "score_bytes": 1 << 20,
        "evidence_samples": 16,
        "trial_epochs": 0,
        "min_trial_steps": 1,
        "min_gain": 0.01,
        "cost_weight": 0,
        "risk_aversion": -1.0,
        "ban_epochs": 0,
        "overhead_fraction": None,
        "max_events": 0,
        "max_parameter_ratio": 1.0,
        "max_flop_ratio": 3.0,
        "max_bytes": 1 << 30,
        "max_seconds": 1.5,
    },
}


def another() -> GrowConfig:
    """Returns a config in which every setting differs from its default."""
    return GrowConfig(
        seed=5,
        device="cpu",
        threads=2,
        data=DataConfig(**OTHER[DataConfig]),
        augment=AugmentConfig(**OTHER[AugmentConfig]),
        model=ModelConfig(**OTHER[ModelConfig]),
        train=TrainConfig(**OTHER[TrainConfig]),
        morphogenesis=MorphogenesisConfig(**OTHER[MorphogenesisConfig]),
    )


@pytest.mark.parametrize("cls", OTHER)
def test_the_other_values_cover_every_setting_and_differ_from_the_defaults(cls):
    defaults, other = cls(), cls(**OTHER[cls])
    assert {field.name for field in dataclasses.fields(cls)} == set(OTHER[cls])
    assert [name for name in OTHER[cls] if getattr(defaults, name) == getattr(other, name)] == []


@pytest.mark.parametrize("make", [GrowConfig, another])
def test_settings_go_to_json_and_back(make):
    config = make()
    record = json.loads(json.dumps(to_json(config)))
    assert from_json(GrowConfig, record) == config


@pytest.mark.parametrize("cls", CONFIGS)
def test_settings_cannot_be_changed_once_made(cls):
    config = cls()
    name = dataclasses.fields(cls)[0].name
    with pytest.raises((dataclasses.FrozenInstanceError, ValidationError), match=r"cannot assign|frozen"):
        setattr(config, name, getattr(config, name))


@pytest.mark.parametrize("cls", CONFIGS)
def test_settings_take_keywords_that_they_know_and_nothing_else(cls):
    with pytest.raises(ValidationError, match="Unexpected"):
        cls(no_such_setting=1)
    with pytest.raises((ValidationError, TypeError), match=r"positional|validation error"):
        cls(1)


@pytest.mark.parametrize("last_epoch", [None, 10.0])
def test_a_staged_schedule_needs_an_end_of_growth_before_that_of_the_run(last_epoch):
    train = TrainConfig(epochs=10, schedule="staged")
    with pytest.raises(ValidationError, match=rf"found morphogenesis.last_epoch {last_epoch} with train.schedule"):
        GrowConfig(train=train, morphogenesis=MorphogenesisConfig(last_epoch=last_epoch))
    GrowConfig(train=train, morphogenesis=MorphogenesisConfig(last_epoch=9))


def test_two_configs_do_not_share_their_options():
    first, second = ModelConfig(), ModelConfig()
    assert first.options is not second.options


@pytest.mark.parametrize(
    ("cls", "setting", "allowed", "refused"),
    [
        (GrowConfig, "seed", (0, 2**63 - 1), (-1, 2**63, 1.0, True, "0")),
        (DataConfig, "validation_fraction", (0.01, 0.99), (0.0, 1.0, float("nan"))),
        (DataConfig, "test_fraction", (0.01, 0.99), (0.0, 1.0)),
        (DataConfig, "limit", (1, None), (0, -1, 1.5)),
        (DataConfig, "source", ("x",), (1, None)),
        (ModelConfig, "options", ({}, {"a": 1}), (1, [1], None)),
        (TrainConfig, "epochs", (1, 10_000), (0, -1, 1.5, True, None)),
        (TrainConfig, "batch_size", (1,), (0,)),
        (TrainConfig, "optimizer", ("sgd", "adamw"), ("SGD", "adam", None)),
        (TrainConfig, "learning_rate", (1e-9, 1), (0.0, -1.0, float("inf"), float("nan"), "3e-3")),
        (TrainConfig, "weight_decay", (0, 0.0, 1.0), (-0.1,)),
        (TrainConfig, "momentum", (0.0, 0.999), (1.0, -0.1)),
        (TrainConfig, "label_smoothing", (0.0, 0.9), (1.0,)),
        (TrainConfig, "clip_norm", (None, 1.0), (0.0,)),
        (TrainConfig, "warmup_epochs", (0.0, 1.0), (-1.0, 1e9)),
        (TrainConfig, "schedule", ("constant",), ("step",)),
        (TrainConfig, "max_seconds", (None, 1e-6), (0.0, -1.0)),
        (TrainConfig, "max_bad_batches", (1,), (0,)),
        (MorphogenesisConfig, "kinds", (("Widen",), ("X", "Y")), ((), "Widen", (1,))),
        (MorphogenesisConfig, "edits_per_event", (1,), (0, 1.5)),
        (MorphogenesisConfig, "triggers", (("plateau",),), ((), "plateau", ("schedule",))),
        (MorphogenesisConfig, "policy", ("thompson",), (1, None, "scheduled")),
        (MorphogenesisConfig, "first_epoch", (0, 2.5), (-1, None)),
        (MorphogenesisConfig, "last_epoch", (None, 2, 2.5), (0, 1)),
        (MorphogenesisConfig, "interval_epochs", (0.5,), (0, None)),
        (MorphogenesisConfig, "schedule_epochs", ((), (0.5, 3)), ((0,), 1.0, (-1,))),
        (MorphogenesisConfig, "plateau_epochs", (3,), (2, 3.5)),
        (MorphogenesisConfig, "plateau_min_slope", (0, 1), (-0.1, float("inf"))),
        (MorphogenesisConfig, "need_threshold", (0, 0.99), (1.0, -0.1)),
        (MorphogenesisConfig, "cooldown_epochs", (0, 9), (-1,)),
        (MorphogenesisConfig, "adapt_rate", (0, 2.0), (-0.1,)),
        (MorphogenesisConfig, "target_success", (0, 0.9), (1.0,)),
        (MorphogenesisConfig, "sequence", ((), ("X",)), ("Widen", (1,))),
        (MorphogenesisConfig, "experience", (None, "a.json"), (1,)),
        (MorphogenesisConfig, "trial_epochs", (0, 0.1, 9), (-0.1, None)),
        (MorphogenesisConfig, "min_trial_steps", (1,), (0, 1.5)),
        (MorphogenesisConfig, "cost_weight", (0, 2.0), (-0.1, float("nan"))),
        (MorphogenesisConfig, "risk_aversion", (-3.0, 3.0), (-3.1, 3.1)),
        (MorphogenesisConfig, "overhead_fraction", (None, 0, 0.5), (1.0, -0.1)),
        (MorphogenesisConfig, "max_seconds", (None, 1e-6), (0.0, -1.0)),
        (MorphogenesisConfig, "widen_ratio", (1.01, 4.0), (1.0, 4.1)),
        (MorphogenesisConfig, "max_events", (0,), (-1,)),
        (MorphogenesisConfig, "max_parameter_ratio", (1.0, 100.0), (0.99,)),
        (MorphogenesisConfig, "max_flop_ratio", (1.0,), (0.5,)),
        (MorphogenesisConfig, "max_bytes", (None, 1), (0, 1.5)),
        (MorphogenesisConfig, "evidence_samples", (16,), (15,)),
        (MorphogenesisConfig, "score", ("gradmax",), (1, None)),
        (MorphogenesisConfig, "score_fraction", (0.0, 0.9), (-0.1, 1.0)),
        (MorphogenesisConfig, "score_bytes", (1,), (0,)),
        (MorphogenesisConfig, "min_gain", (0.0, 0.5), (1.0, -0.1)),
    ],
)
def test_a_setting_takes_its_range_and_nothing_beyond(cls, setting, allowed, refused):
    for value in allowed:
        assert getattr(cls(**{setting: value}), setting) == value
    for value in refused:
        with pytest.raises(ValidationError, match=r"validation error"):
            cls(**{setting: value})


@pytest.mark.parametrize("cls", CONFIGS)
def test_every_setting_has_a_default_and_a_type(cls):
    assert cls() == cls()
    assert set(get_type_hints(cls)) == {field.name for field in dataclasses.fields(cls)}
