"""Growth scores against hand-made junctions: what is known, what is invariant, what noise gives, what it costs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from neuroexapt.analysis.scores import SCORES, Junction
from neuroexapt.errors import BudgetError, InputError, NonFiniteActivationError
from neuroexapt.graph import FlopCount

N, OLD, NEW, OUT, INPUTS = 64, 6, 3, 4, 5
ROUNDING = 1e-9  # float64, through Gram matrices
MAX_BYTES = 16 << 20


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise(seed: int = 0, samples: int = N, rows: int = 1, is_diagonal: bool = False) -> Junction:
    return Junction(
        gradients=randn(samples, rows, OUT, seed=seed),
        new=randn(samples, rows, OUT if is_diagonal else NEW, seed=seed + 1000),
        old=randn(samples, rows, OLD, seed=seed + 2000),
        inputs=None if is_diagonal else randn(samples, rows, INPUTS, seed=seed + 3000),
        units=NEW,
        num_positions=rows,
        is_diagonal=is_diagonal,
    )


def signal(seed: int = 0, samples: int = N, rows: int = 1) -> Junction:
    """The gradient is made of what the new units, the old ones and the maker's inputs give, and of noise."""
    plain = noise(seed, samples, rows)
    assert plain.inputs is not None
    weights = randn(NEW + OLD + INPUTS, OUT, seed=7)
    return replace(plain, gradients=plain.gradients + torch.cat([plain.new, plain.old, plain.inputs], 2) @ weights)


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


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("rows", [1, 2])
def test_noise_scores_nothing_on_average_and_within_its_interval(name: str, rows: int) -> None:
    found = [SCORES[name].estimate(noise(seed, 32, rows)) for seed in range(150)]
    values = torch.tensor([f.value for f in found], dtype=torch.float64)
    assert abs(float(values.mean())) < 3.5 * float(values.std()) / math.sqrt(len(values))
    assert sum(f.low <= 0 <= f.high for f in found) >= 0.9 * len(found)


@pytest.mark.parametrize("name", SCORES)
def test_signal_is_told_from_noise_and_more_samples_agree_on_it(name: str) -> None:
    few, many = (SCORES[name].estimate(signal(samples=samples)) for samples in (128, 2048))
    assert few.low > 0
    assert few.low < many.value < few.high
    assert many.spread < few.spread


@pytest.mark.parametrize("name", SCORES)
def test_mixing_the_old_columns_and_the_order_of_batches_change_nothing(name: str) -> None:
    plain, score = signal(), SCORES[name]
    mixing = torch.linalg.qr(randn(OLD, OLD, seed=9))[0]
    expected = score.estimate(plain).value
    assert score.estimate(replace(plain, old=plain.old @ mixing)).value == pytest.approx(expected, rel=1e-7)
    order = torch.arange(N).view(-1, 8)[torch.tensor([3, 0, 7, 1, 5, 6, 2, 4])].flatten()  # halves stay together
    moved = Junction(plain.gradients[order], plain.new[order], plain.old[order], plain.inputs[order], plain.units)
    assert score.estimate(moved).value == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("name", SCORES)
def test_float32_rows_give_what_float64_rows_give(name: str) -> None:
    plain = signal()
    assert plain.inputs is not None
    coarse = replace(
        plain,
        gradients=plain.gradients.float(),
        new=plain.new.float(),
        old=plain.old.float(),
        inputs=plain.inputs.float(),
    )
    expected = SCORES[name].estimate(plain).value
    assert SCORES[name].estimate(coarse).value == pytest.approx(expected, rel=1e-4)


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


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize(("samples", "rows"), [(8, 1), (40, 1), (24, 4)])
def test_flops_are_never_more_than_foretold(name: str, samples: int, rows: int) -> None:
    plain = noise(0, samples, rows)
    with FlopCount() as count:
        SCORES[name].estimate(plain)
    assert 0 < count.flops <= SCORES[name].flops(plain.shape)


@pytest.mark.parametrize("name", SCORES)
def test_bytes_are_stated_and_refused_before_anything_is_allocated(name: str) -> None:
    plain = signal()
    needed = SCORES[name].measure("conv1", plain, MAX_BYTES).num_bytes
    with pytest.raises(BudgetError, match=rf"conv1: {name} takes {needed} bytes, allowed are {needed - 1}"):
        SCORES[name].measure("conv1", plain, needed - 1)


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
