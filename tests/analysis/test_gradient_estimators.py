"""What the estimators of gradients compute, against hand-made cases, brute force and autograd."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroexapt.analysis.estimators.context import Context
from neuroexapt.analysis.estimators.expressivity import Expressivity
from neuroexapt.analysis.estimators.gradient_noise import GradientNoise
from neuroexapt.analysis.estimators.regression import basis, fit, ridge
from neuroexapt.analysis.estimators.sensitivity import Sensitivity
from neuroexapt.analysis.estimators.squares import COLUMNS, Jackknifed, mean_of_rows, ratio, square_of_mean
from neuroexapt.analysis.measuring import measure_evidence
from neuroexapt.analysis.watching import LayerSample
from neuroexapt.config import EvidenceConfig

FLOAT32 = 1e-4  # rows are float32
FLOAT64 = 1e-10  # sums of them are float64


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _sample(count: int, **views: Tensor) -> LayerSample:
    bounds = torch.zeros(3)
    rows = {name: rows.float() for name, rows in views.items()}
    return LayerSample(features=torch.zeros(count, 3), low=bounds, high=bounds, **rows, num_inputs=5, num_outputs=4)


def _gap(inputs: Tensor, gradients: Tensor) -> tuple[float, float, float]:
    found = Expressivity().estimate(_sample(len(inputs), inputs=inputs, gradients=gradients))["expressivity_gap"]
    return found.low, found.value, found.high


@pytest.mark.parametrize("power", [1, 2])
def test_the_square_of_a_mean_is_the_mean_product_of_different_rows(power: int) -> None:
    rows = _normal(9, COLUMNS + 7) + 0.1
    taken = rows**power
    found = square_of_mean(rows, power)

    def brute(kept: list[int]) -> float:
        products = [float(taken[i] @ taken[j]) for i in kept for j in kept if i != j]
        return sum(products) / len(products)

    assert found.whole == pytest.approx(brute(list(range(9))), rel=FLOAT64)
    for left_out in range(9):
        kept = [i for i in range(9) if i != left_out]
        assert float(found.without[left_out]) == pytest.approx(brute(kept), rel=FLOAT64)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = _normal(40)
    assert float(mean_of_rows(values).influence.norm()) == pytest.approx(float(values.std()) / 40**0.5, rel=FLOAT64)


def test_a_ratio_is_open_above_only_where_its_denominator_may_be_0() -> None:
    numbers, near_zero = _normal(50) + 10, _normal(50, seed=1)
    closed = ratio(mean_of_rows(numbers), mean_of_rows(numbers + _normal(50, seed=2)))
    open_above = ratio(mean_of_rows(numbers), mean_of_rows(near_zero - near_zero.mean()))
    assert closed is not None
    assert closed.low < 1 < closed.high < 1.1
    assert open_above is not None
    assert open_above.high == open_above.spread == math.inf
    assert 0 < open_above.low <= open_above.value
    standard_error = float(near_zero.std()) / 50**0.5
    assert open_above.value == pytest.approx(float(numbers.mean()) / standard_error, rel=FLOAT64)
    assert ratio(mean_of_rows(numbers), Jackknifed(0.0, torch.zeros(50, dtype=torch.float64))) is None


def test_noise_scale_is_that_of_autograd_on_single_samples() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
    inputs, targets = torch.randn(48, 6), torch.arange(48) % 3
    inputs[:, 0] += 4 * targets
    config = EvidenceConfig(num_samples=48, estimators=("gradient_noise",))
    batches = zip(inputs.split(20), targets.split(20), strict=True)
    evidence = measure_evidence(model, batches, config=config)
    for path in ("0", "2"):
        weight = model.get_submodule(path).weight
        each = [
            torch.autograd.grad(F.cross_entropy(model(x[None]), y[None]), weight)[0].flatten()
            for x, y in zip(inputs, targets, strict=True)
        ]
        rows = torch.stack(each).double()
        variance = float(rows.var(0).sum())
        square = float(rows.mean(0).square().sum()) - variance / 48
        values = evidence.layer(path).values
        assert values["gradient_square"].value == pytest.approx(square, rel=FLOAT32)
        assert values["gradient_variance"].value == pytest.approx(variance, rel=FLOAT32)
        assert values["noise_scale"].value == pytest.approx(variance / square, rel=FLOAT32)
        assert values["gradient_agreement"].value == pytest.approx(square / (square + variance), rel=FLOAT32)
        assert values["gradient_rms"].value == pytest.approx((square / weight.numel()) ** 0.5, rel=FLOAT32)


def test_noise_without_a_gradient_has_a_finite_noise_scale_with_an_open_end() -> None:
    rows = _normal(64, 30)
    found = GradientNoise().estimate(_sample(64, weight_gradients=rows - rows.mean(0)))
    assert found["gradient_square"].value == found["gradient_square"].low == 0
    assert math.isfinite(found["noise_scale"].value)
    assert found["noise_scale"].high == found["noise_scale"].spread == math.inf
    assert found["gradient_agreement"].low == 0


def test_the_same_gradient_of_all_samples_is_no_noise_and_none_at_all_has_no_noise_scale() -> None:
    same = GradientNoise().estimate(_sample(20, weight_gradients=torch.full((20, 4), 2.0)))
    none = GradientNoise().estimate(_sample(20, weight_gradients=torch.zeros(20, 4)))
    assert same["gradient_square"].value == pytest.approx(16)
    assert same["noise_scale"].value == pytest.approx(0, abs=FLOAT64)
    assert same["gradient_agreement"].value == pytest.approx(1)
    assert none["gradient_square"].high == 0
    assert "noise_scale" not in none


def test_sensitivities_of_units_with_known_effects() -> None:
    signs = torch.tensor([1.0, -1.0]).repeat(40)[:, None]
    effects = torch.cat([torch.full((80, 1), 3.0), signs, torch.zeros(80, 2)], 1)  # the same, alternating, none, none
    found = Sensitivity().estimate(_sample(80, relevance=effects))
    assert found["taylor_sensitivity"].value == pytest.approx(((9 - 1 / 79) / 4) ** 0.5, rel=FLOAT32)
    assert found["fisher_sensitivity"].value == pytest.approx((9 + 1) / 2 / 4, rel=FLOAT32)
    assert found["taylor_share"].value == pytest.approx((9 - 1 / 79) / 10, rel=FLOAT32)
    assert found["effective_unit_fraction"].value == pytest.approx(10**2 / (4 * (9**2 + 1)), rel=FLOAT32)
    assert found["negligible_fraction"].low == found["negligible_fraction"].high == 0.5


def test_what_few_samples_cannot_tell_of_a_unit_stays_open() -> None:
    effects = _normal(20, 6)
    effects[:, 5] *= 0.06  # near a hundredth of the mean square, from below
    found = Sensitivity().estimate(_sample(20, relevance=effects))["negligible_fraction"]
    assert found.low == 0
    assert found.value == 1 / 6
    assert found.high > 1 / 6


@pytest.mark.parametrize("count", [64, 256])
def test_the_gap_of_a_linear_gradient_is_0_and_of_an_unrelated_one_1(count: int) -> None:
    inputs = _normal(count, 12)
    low, value, high = _gap(inputs, inputs @ _normal(12, 5, seed=1) + 2.0)
    assert 0 == low <= value <= high < FLOAT32
    low, value, high = _gap(inputs, _normal(count, 5, seed=2))
    assert low < value
    assert value == pytest.approx(1, abs=0.15)
    assert high == 1


def test_inputs_that_repeat_or_stay_constant_change_nothing() -> None:
    inputs, gradients = _normal(96, 12), _normal(96, 5, seed=1)
    gradients += 0.5 * inputs[:, :5]
    more = torch.cat([inputs, inputs[:, :4] * 3, torch.full((96, 2), 7.0), torch.zeros(96, 1)], 1)
    assert _gap(more, gradients) == pytest.approx(_gap(inputs, gradients), rel=FLOAT32)


def test_a_sample_whose_inputs_no_other_has_leaves_open_what_it_asks_for() -> None:
    inputs, gradients = _normal(96, 6), _normal(96, 5, seed=1)
    without = _gap(inputs[1:], gradients[1:])
    only = torch.cat([inputs, torch.eye(96)[:, :1]], 1)
    part = float(gradients[0].square().sum() / gradients.square().sum())
    low, value, high = _gap(only, gradients)
    assert value == pytest.approx(without[1], rel=FLOAT32)
    assert low == pytest.approx(without[0] * (1 - part), rel=FLOAT32)
    assert high == pytest.approx(without[2] * (1 - part) + part, rel=FLOAT32)


def test_more_inputs_than_samples_give_an_upper_bound_that_reaches_down() -> None:
    inputs = _normal(64, 100)
    gradients = inputs @ _normal(100, 8, seed=1)  # the true gap is 0
    low, value, high = _gap(inputs, gradients)
    assert low == 0 < value < high <= 1


def test_leave_one_out_errors_are_those_of_fits_without_the_row() -> None:
    inputs, gradients = _normal(40, 3), _normal(40, 2, seed=1)
    left, singular = basis(inputs)
    rows = torch.cat([inputs, torch.ones(40, 1)], 1)
    error = []
    for i in range(40):
        kept = torch.arange(40) != i
        solution = torch.linalg.lstsq(rows[kept], gradients[kept]).solution
        error.append((gradients[i] - rows[i] @ solution).square().sum())
    found, left_out = fit(left, gradients), torch.stack(error)
    assert torch.allclose(found.of_row, left_out, rtol=FLOAT64)
    residual = gradients - rows @ torch.linalg.lstsq(rows, gradients).solution
    assert float(found.errors[0]) == pytest.approx(float(residual.square().sum()) / 36, rel=FLOAT64)
    assert float(found.errors[2]) == pytest.approx(float(left_out.mean()) * 36 / 40, rel=FLOAT64)
    assert float(ridge(left, singular, gradients).errors) <= float(left_out.mean()) * (1 + FLOAT32)


def test_context_is_the_share_of_the_residual_that_pooled_features_explain() -> None:
    inputs, pooled, noise = _normal(512, 8), _normal(512, 6, seed=1), _normal(512, 6, seed=2)
    sample = _sample(512, inputs=inputs, gradients=inputs[:, :6] + pooled + noise, pooled=pooled + inputs[:, :6])
    assert Context().estimate(sample)["context_fraction"].value == pytest.approx(0.5, abs=0.05)
    everything = replace(sample, gradients=(inputs[:, :6] + pooled).float())
    assert Context().estimate(everything)["context_fraction"].low > 1 - FLOAT32
    known = (inputs - inputs.mean(0)) @ _normal(8, 6, seed=3)
    nothing = replace(sample, pooled=known.float())
    assert Context().estimate(nothing)["context_fraction"].high < FLOAT32


def test_context_says_what_few_samples_leave_open_and_nothing_where_inputs_fill_them() -> None:
    inputs, pooled = _normal(64, 8), _normal(64, 60, seed=1)
    gradients = _normal(64, 6, seed=2) + pooled[:, :6]
    found = Context().estimate(_sample(64, inputs=inputs, gradients=gradients, pooled=pooled))["context_fraction"]
    assert found.high == 1
    assert not Context().estimate(_sample(64, inputs=_normal(64, 70), gradients=gradients, pooled=pooled))


def test_a_network_whose_targets_its_layer_can_give_has_no_gap_and_another_one_a_large_one() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))
    inputs, matrix = torch.randn(256, 6), torch.randn(10, 4)
    hidden = torch.tanh(model[0](inputs)).detach()
    config = EvidenceConfig(num_samples=256, estimators=("expressivity",))

    def gap(targets: Tensor) -> float:
        found = measure_evidence(model, [(inputs, targets)], F.mse_loss, config).layer("2").values["expressivity_gap"]
        assert found.low <= found.value <= found.high
        return found.value

    assert gap(hidden @ matrix + 1.0) < FLOAT32
    with torch.no_grad():
        products = model(inputs) + inputs[:, :4] * inputs[:, 1:5]
    assert gap(products) > 0.7
