"""An interval whose end rounding has turned over holds its value all the same; one that is wrong is an error."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pytest
import torch

from neuroexapt.analysis.estimators.base import Estimator, Value
from neuroexapt.analysis.watching import LayerSample


class Told(Estimator):
    """Gives one value whatever the rows are."""

    name = "told"
    views = frozenset({"features"})
    values = MappingProxyType({"told": "what was told"})

    def __init__(self, low: float, value: float, high: float) -> None:
        self.told = Value(value, 0.1, low, high)

    def workspace_bytes(self, sample: LayerSample) -> int:
        return 0

    def estimate(self, sample: LayerSample) -> Mapping[str, Value]:
        return {"told": self.told}


SAMPLE = LayerSample(features=torch.zeros(4, 1), low=torch.zeros(1), high=torch.zeros(1))


@pytest.mark.parametrize("told", [(0.5, 1.0, 1.0 - 1e-16), (1e-18 * (1 + 1e-15), 1e-18, 2e-18)])
def test_an_end_that_rounding_put_on_the_wrong_side_is_the_value(told: tuple[float, float, float]) -> None:
    found = Told(*told).measure("layer", SAMPLE, 1000)["told"]
    assert found.low <= found.value <= found.high
    assert found.value == told[1]


def test_an_interval_without_its_value_is_an_error() -> None:
    with pytest.raises(ValueError, match="needed an ordered interval"):
        Told(0.5, 1.0, 0.9).measure("layer", SAMPLE, 1000)
