"""The slope of a noisy curve and its interval."""

from __future__ import annotations

import math

import pytest
import torch

from neuroexapt.morphogenesis.triggers.theil_sen import theil_sen

RUNS = 400


def test_a_line_has_its_slope_and_no_doubt() -> None:
    found = theil_sen([3.0 - 0.5 * i for i in range(6)], 0.95)
    assert (found.low, found.value, found.high) == pytest.approx((-0.5, -0.5, -0.5))


def test_one_outlier_does_not_tilt_it() -> None:
    line = [1.0 - 0.1 * i for i in range(9)]
    line[4] = 50.0
    assert theil_sen(line, 0.8).value == pytest.approx(-0.1, abs=1e-12)


def test_the_ends_are_sens_ranks() -> None:
    """Sen 1968: with 10 points, N = 45 and s = sqrt(125), ranks (45 -+ 1.96 s) / 2 = 11.5 from either end."""
    values = torch.randn(10, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    slopes = sorted((values[j] - values[i]) / (j - i) for j in range(10) for i in range(j))
    found = theil_sen(values, 0.95)
    assert (found.low, found.value, found.high) == (slopes[10], slopes[22], slopes[-11])


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("length", [5, 8, 12])
@pytest.mark.parametrize("tails", ["normal", "heavy"])
def test_the_interval_holds_the_slope_at_least_as_often_as_it_says(confidence: float, length: int, tails: str) -> None:
    noise = torch.randn(RUNS, length, generator=torch.Generator().manual_seed(length), dtype=torch.float64)
    noise = noise.sinh() ** 3 if tails == "heavy" else noise
    curves = (noise - 0.3 * torch.arange(length)).tolist()
    found = [theil_sen(curve, confidence) for curve in curves]
    held = sum(slope.low <= -0.3 <= slope.high for slope in found) / RUNS
    assert held >= confidence - 2 * math.sqrt(confidence * (1 - confidence) / RUNS)


def test_three_points_give_the_range_of_their_slopes() -> None:
    found = theil_sen([0.0, 2.0, 1.0], 0.95)
    assert (found.low, found.value, found.high) == (-1.0, 0.5, 2.0)
