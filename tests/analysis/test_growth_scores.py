"""Growth scores of hand-made junctions against what is known of each."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from contracts.junctions import INPUTS, NEW, OLD, OUT, N, noise, randn, signal
from neuroexapt.analysis.scores import SCORES
from neuroexapt.errors import InputError, NonFiniteActivationError

ROUNDING = 1e-9  # float64, through Gram matrices
MAX_BYTES = 16 << 20


@pytest.mark.parametrize("is_diagonal", [False, True])
def test_a_target_that_the_layer_spans_scores_nothing(is_diagonal: bool) -> None:
    plain = noise(is_diagonal=is_diagonal)
    asked = plain.old @ randn(OLD, OUT, seed=5) + 2.0
    found = SCORES["residual"].estimate(replace(plain, gradients=asked))
    assert found.value == pytest.approx(0.0, abs=ROUNDING)
    assert SCORES["gradient_norm"].estimate(replace(plain, gradients=asked)).spread > 1e-3


def test_a_target_that_new_units_give_exactly_scores_the_square_that_is_new_in_it() -> None:
    plain = noise()
    weights = randn(NEW, OUT, seed=5)
    asked = plain.new @ weights + plain.old @ randn(OLD, OUT, seed=6)
    found = SCORES["residual"].estimate(replace(plain, gradients=asked))
    whole = torch.cat([plain.old[:, 0], torch.ones(N, 1)], 1)
    left = asked[:, 0] - whole @ torch.linalg.lstsq(whole, asked[:, 0]).solution
    assert found.value == pytest.approx(float(left.square().sum()) / N, rel=1e-6)
    assert found.low < found.value < found.high


def test_each_output_of_a_diagonal_junction_is_answered_by_its_own_column_only() -> None:
    plain = noise(is_diagonal=True)
    factors = torch.tensor([0.5, 0.0, -2.0, 1.0], dtype=torch.float64)
    found = SCORES["residual"].estimate(replace(plain, gradients=plain.new * factors))
    whole = torch.cat([plain.old[:, 0], torch.ones(N, 1)], 1)
    left = plain.new[:, 0] - whole @ torch.linalg.lstsq(whole, plain.new[:, 0]).solution
    assert found.value == pytest.approx(float((left * factors).square().sum()) / N, rel=1e-6)
    swapped = SCORES["residual"].estimate(replace(plain, gradients=(plain.new * factors).roll(1, 2)))
    assert swapped.value < found.value / 4


def test_the_squared_gradient_norm_is_that_of_the_mean_gradient_without_the_noise() -> None:
    plain = signal(rows=2)
    each = torch.einsum("nqa,nqo->nao", plain.new, plain.gradients).flatten(1)
    pairs = (each @ each.T).fill_diagonal_(0).sum() / (N * (N - 1))
    assert SCORES["gradient_norm"].estimate(plain).value == pytest.approx(float(pairs), rel=1e-9)
    half = replace(plain, num_positions=4)  # every row stands for two positions
    assert SCORES["gradient_norm"].estimate(half).value == pytest.approx(4 * float(pairs), rel=1e-9)


def test_the_best_units_gain_at_least_what_random_ones_do() -> None:
    plain = signal(samples=1024)
    assert plain.inputs is not None
    given = replace(plain, new=plain.inputs @ randn(INPUTS, NEW, seed=3), old=plain.old[:, :, :0])
    best, random = (SCORES[name].estimate(given).value for name in ("tiny", "residual"))
    assert best > random
    whole = torch.linalg.lstsq(plain.inputs[:, 0], plain.gradients[:, 0] - plain.gradients[:, 0].mean(0)).solution
    values = torch.linalg.svdvals(plain.inputs[:, 0] @ whole)
    assert best == pytest.approx(float(values[:NEW].square().sum()) / 1024, rel=0.1)


def test_gradmax_is_the_sum_of_the_leading_squared_singular_values() -> None:
    plain = signal(samples=4096)
    assert plain.inputs is not None
    matrix = plain.gradients[:, 0].T @ plain.inputs[:, 0] / 4096
    expected = float(torch.linalg.svdvals(matrix)[:NEW].square().sum())
    assert SCORES["gradmax"].estimate(plain).value == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("what", ["gradients", "new", "old", "inputs"])
def test_a_number_that_is_none_is_named_with_its_place(what: str) -> None:
    plain = noise()
    bad = getattr(plain, what).clone()
    bad[3, 0, 0] = math.nan
    with pytest.raises(NonFiniteActivationError, match=r"stages.0.conv1: found a NaN or infinite"):
        SCORES["residual"].measure("stages.0.conv1", replace(plain, **{what: bad}), MAX_BYTES)


def test_what_is_not_defined_is_said_and_not_made_up() -> None:
    for name in ("tiny", "gradmax"):
        with pytest.raises(InputError, match=rf"relu: {name} is not defined here: no layer makes its new units"):
            SCORES[name].measure("relu", replace(noise(), inputs=None), MAX_BYTES)
        with pytest.raises(InputError, match=r"found 5 samples, needed at least 6"):
            SCORES[name].measure("relu", noise(samples=5), MAX_BYTES)
    with pytest.raises(InputError, match=r"found 2 samples, needed at least 3"):
        SCORES["residual"].measure("relu", noise(samples=2), MAX_BYTES)
