"""Estimators of activations against what numpy computes and what is known beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from neuroexapt.analysis.estimators import ESTIMATORS
from neuroexapt.analysis.estimators.spectrum import factor
from neuroexapt.analysis.estimators.standardised import StandardRows
from neuroexapt.analysis.evidence import Evidence
from neuroexapt.analysis.watching import LayerSample

ROUNDING = 2e-5  # of float32 sums over some hundred rows
ENOUGH = 1 << 30


def rows(n: int, d: int, seed: int = 0) -> Tensor:
    """Correlated rows of very different scales and means."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=generator)
    return mixed * torch.logspace(-3, 3, d) + torch.randn(d, generator=generator)


def measured(name: str, features: Tensor) -> dict[str, Evidence]:
    sample = LayerSample(features=features, low=features.amin(0), high=features.amax(0))
    return ESTIMATORS[name].measure("layer", sample, ENOUGH)


def independent(n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("n", "d"), [(300, 40), (40, 300), (64, 600)])
def test_blocks_of_correlations_and_both_factors_are_those_of_numpy(n: int, d: int) -> None:
    features = rows(n, d)
    expected = np.corrcoef(features.double().numpy().T)
    found = StandardRows.of(features)
    r = torch.zeros(d, d)
    for pair in found.correlations():
        r[pair.i, pair.j], r[pair.j, pair.i] = pair.r, pair.r.T
    assert np.allclose(r + torch.eye(d), expected, atol=ROUNDING)
    eigenvalues = np.linalg.eigvalsh(expected)[::-1][: len(factor(found).eigenvalues)]
    assert np.allclose(factor(found).eigenvalues, eigenvalues, atol=d * ROUNDING)


def test_predictability_is_that_of_leaving_out_each_row_in_turn() -> None:
    features = rows(30, 6)
    z = ((features - features.mean(0)) / features.std(0, correction=0)).double()
    best = -math.inf
    for ridge in (1e-4, 1e-2, 1e-1, 1.0, 10.0):
        errors = []
        for unit in range(6):
            others = torch.cat([z[:, :unit], z[:, unit + 1 :]], 1)
            for row in range(30):
                kept = torch.arange(30) != row
                x, y = others[kept], z[kept, unit]
                center, mean = x.mean(0), y.mean()
                gram = (x - center).T @ (x - center) + ridge * 30 * torch.eye(5, dtype=torch.float64)
                weight = torch.linalg.solve(gram, (x - center).T @ (y - mean))
                errors.append(float(z[row, unit] - mean - (others[row] - center) @ weight) ** 2)
        best = max(best, 1 - sum(errors) / len(errors))
    assert measured("redundancy", features)["predictability"].value == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize(("n", "d"), [(64, 24), (64, 256), (256, 100)])
def test_independent_units_have_no_correlation_full_rank_and_no_redundancy(n: int, d: int) -> None:
    features = independent(n, d)
    found = measured("correlation", features) | measured("rank", features) | measured("redundancy", features)
    assert found["mean_absolute_correlation"].value < 0.1 / math.sqrt(n)  # a sample shows 0.8 / sqrt(n)
    assert found["mean_square_correlation"].value < 0.1 / n  # a sample shows 1 / n
    assert found["effective_rank_fraction"].value > 0.9
    assert found["participation_fraction"].value > 0.9
    assert found["redundancy"].value < 0.1
    assert found["near_duplicate_fraction"].value == 0
    assert found["predictability"].value < 0.05


def test_doubles_are_found_and_halve_the_rank() -> None:
    half = independent(256, 20)
    features = torch.cat([half, -3 * half + 1], 1)
    found = measured("redundancy", features)
    assert found["near_duplicate_fraction"].value == 1
    assert found["redundancy"].value == pytest.approx(0.5, abs=0.02)
    assert found["predictability"].value == pytest.approx(1, abs=1e-3)


def test_constant_and_dead_units_are_in_no_pair_but_counted_apart() -> None:
    features = independent(128, 30)
    padded = torch.cat([features, torch.zeros(128, 5), torch.full((128, 5), 1.7)], 1)
    for name in ("correlation", "rank", "redundancy", "entropy"):
        alone, among = measured(name, features), measured(name, padded)
        assert {k: v.value for k, v in among.items()} == {k: v.value for k, v in alone.items()}
    found = measured("saturation", padded)
    assert found["dead_fraction"].value == found["constant_fraction"].value == 0.125


def test_the_scale_and_mean_of_a_unit_do_not_matter() -> None:
    features = independent(128, 30)
    moved = features * torch.logspace(-3, 3, 30) + 5
    for name in ("correlation", "rank", "redundancy", "entropy"):
        first, second = measured(name, features), measured(name, moved)
        for key, evidence in first.items():
            assert second[key].value == pytest.approx(evidence.value, abs=1e-2), key


def test_a_layer_without_two_units_that_vary_has_no_pairs() -> None:
    features = torch.cat([independent(64, 1), torch.zeros(64, 3)], 1)
    assert not measured("correlation", features) | measured("rank", features) | measured("redundancy", features)
    assert measured("entropy", features)["unit_entropy"].value == pytest.approx(0.83, abs=0.05)
    assert not measured("entropy", torch.zeros(64, 3))


def test_entropy_knows_a_gaussian_two_values_and_a_rare_spike() -> None:
    gaussian = independent(512, 16)
    spike = torch.zeros(512, 16)
    spike[3] = 1.0
    assert measured("entropy", gaussian)["unit_entropy"].value == pytest.approx(0.83, abs=0.01)
    assert measured("entropy", gaussian.sign())["unit_entropy"].value == pytest.approx(0.63, abs=0.01)
    assert measured("entropy", spike)["unit_entropy"].value < 0.4


def test_saturation_is_of_ends_that_are_reached_more_than_once() -> None:
    features = independent(256, 40)
    assert measured("saturation", features)["saturated_fraction"].value == 0
    clipped = measured("saturation", features.clamp(-1, 1))["saturated_fraction"]
    assert clipped.low < 0.3173 < clipped.high
    assert measured("saturation", features.relu())["saturated_fraction"].value == pytest.approx(0.5, abs=0.02)


def test_with_fewer_rows_than_units_the_rank_is_left_open() -> None:
    generator = torch.Generator().manual_seed(2)
    decaying = torch.randn(64, 400, generator=generator) * torch.arange(1, 401) ** -0.5
    basis, _ = torch.linalg.qr(torch.randn(400, 400, generator=generator))
    features = decaying @ basis
    found = measured("rank", features)["effective_rank"]
    covariance = basis.T @ torch.diag(torch.arange(1, 401) ** -1.0) @ basis
    deviation = covariance.diagonal().sqrt()
    p = torch.linalg.eigvalsh(covariance / deviation / deviation[:, None]) / 400
    exact = math.exp(-float(torch.xlogy(p, p).sum()))
    assert found.low < exact < found.high
    assert found.high > 1.5 * found.low
