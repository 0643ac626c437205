"""The limit of bytes follows what steps really took."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from morphogenesis.stepwise import StepLoop
from neuroexapt.morphogenesis.budget import calibrate, gauge_of


class Gauge:
    def __init__(self, grown: int) -> None:
        self.grown = grown

    def grown_bytes(self) -> int:
        return self.grown


@pytest.mark.parametrize(("beyond", "left"), [(5_000, 95_000), (-5_000, 100_000), (10**9, 1)])
def test_what_steps_took_beyond_the_prediction_is_taken_off_the_limit(beyond: int, left: int) -> None:
    engine = StepLoop(max_bytes=100_000).engine
    predicted = engine.surgeon.forecast(batch_size=engine.surgeon.budget.batch_size).peak_bytes  # type: ignore[union-attr]
    gauge: Any = Gauge(predicted + beyond)
    calibrate(engine.config, engine.surgeon, gauge)
    assert engine.surgeon.budget is not None
    assert engine.surgeon.budget.bytes == left


def test_on_cpu_the_prediction_stands_alone() -> None:
    engine = StepLoop(max_bytes=100_000).engine
    assert gauge_of(torch.nn.Linear(2, 2)) is None
    calibrate(engine.config, engine.surgeon, None)
    assert engine.surgeon.budget is not None
    assert engine.surgeon.budget.bytes == 100_000
