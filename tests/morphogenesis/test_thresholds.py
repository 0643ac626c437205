"""Strictness follows success."""

from __future__ import annotations

import math

import pytest
import torch

from neuroexapt.morphogenesis.thresholds import LEAST, MOST, adapted


def test_a_failure_makes_stricter_a_success_less_and_rate_nought_neither() -> None:
    assert adapted(1.0, False, 0.3, 0.5) == pytest.approx(math.exp(0.15))
    assert adapted(1.0, True, 0.3, 0.2) == pytest.approx(math.exp(-0.24))
    assert adapted(1.7, True, 0.0, 0.5) == adapted(1.7, False, 0.0, 0.5) == 1.7


@pytest.mark.parametrize(("success", "bound"), [(True, LEAST), (False, MOST)])
def test_strictness_stays_within_its_bounds(success: bool, bound: float) -> None:
    strictness = 1.0
    for _ in range(100):
        strictness = adapted(strictness, success, 0.3, 0.5)
    assert strictness == bound
    assert adapted(strictness, not success, 0.3, 0.5) != bound


@pytest.mark.parametrize("target", [0.3, 0.5, 0.8])
def test_the_share_of_successes_settles_at_the_target(target: float) -> None:
    """Stricter triggers succeed more often here: with probability 1 - exp(-strictness)."""
    draws = torch.rand(4000, generator=torch.Generator().manual_seed(3)).tolist()
    strictness, successes, passed = 4.0, [], []
    for draw in draws:
        successes.append(draw < 1 - math.exp(-strictness))
        strictness = adapted(strictness, successes[-1], 0.1, target)
        passed.append(math.log(strictness))
    late = successes[400:]
    assert sum(late) / len(late) == pytest.approx(target, abs=0.02)
    assert sum(passed[400:]) / len(late) == pytest.approx(math.log(-math.log(1 - target)), abs=0.15)
