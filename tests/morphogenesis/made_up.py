"""Made-up candidates and moments, for tests of what is decided about them."""

from __future__ import annotations

from typing import Any

import torch

from neuroexapt.analysis import Evidence
from neuroexapt.config import MorphogenesisConfig
from neuroexapt.morphogenesis.assay import Assay
from neuroexapt.morphogenesis.experience import Experience
from neuroexapt.morphogenesis.history import History
from neuroexapt.morphogenesis.policies import Context
from neuroexapt.morphogenesis.triggers import Moment
from neuroexapt.surgery import InsertLayer, Mutation, RemoveLayer, Widen

KINDS = ("Widen", "InsertLayer", "RemoveLayer")


def candidate(place: str, value: float | None = None, flops: int = 100, kind: str = "Widen", order: int = 0) -> Assay:
    mutations: dict[str, Mutation] = {
        "Widen": Widen(axis=place, to=9),
        "InsertLayer": InsertLayer(site=place),
        "RemoveLayer": RemoveLayer(path=place),
    }
    evidence = (
        None
        if value is None
        else Evidence(
            value=value, spread=0.1, low=value, high=value, num_samples=64, estimator="gradient norm", num_bytes=32
        )
    )
    return Assay(mutations[kind], f"{kind} {place}", 10, flops, evidence, order)


def config(**settings: Any) -> MorphogenesisConfig:
    """Without gates, unless they are asked for."""
    open_gates = {"first_epoch": 0.0, "cooldown_epochs": 0.0, "max_events": 1000}
    rest = {"schedule_epochs": (2.0, 4.5, 7.0), "sequence": KINDS, "need_threshold": 0.6, "kinds": KINDS}
    return MorphogenesisConfig(**(open_gates | rest | settings))


def context(
    settings: MorphogenesisConfig | None = None,
    history: History | None = None,
    experience: Experience | None = None,
    *,
    seed: int = 0,
    generator: torch.Generator | None = None,
    num_events: int = 0,
) -> Context:
    return Context(
        config=settings or config(),
        history=history or History(),
        experience=experience or Experience(),
        generator=generator or torch.Generator().manual_seed(seed),
        num_events=num_events,
    )


def moment(settings: MorphogenesisConfig | None = None, **values: Any) -> Moment:
    """At the end of an epoch, with as many losses as epochs; nothing has happened yet."""
    position = float(values.pop("position", 0.0))
    plain = {
        "at_epoch_end": position == round(position),
        "losses": [1.0] * int(position),
        "last_event": 0.0,
        "num_events": 0,
        "highest_need": lambda: 0.0,
    }
    return Moment(config=settings or config(), position=position, **(plain | values))
