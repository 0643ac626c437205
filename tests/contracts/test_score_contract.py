"""What every growth score keeps to, without a line for any of them: noise, signal, FLOPs, bytes, purity."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from contracts.junctions import NEW, OLD, N, noise, randn, signal
from neuroexapt.analysis.scores import SCORES, Junction
from neuroexapt.errors import BudgetError
from neuroexapt.graph import FlopCount
from neuroexapt.resources import LiveStorages

MAX_BYTES = 16 << 20
ALLOWANCE = 1.1  # of the stated bytes

every_score = pytest.mark.parametrize("name", SCORES)


@every_score
@pytest.mark.parametrize("rows", [1, 2])
def test_noise_scores_nothing_on_average_and_within_its_interval(name: str, rows: int) -> None:
    found = [SCORES[name].estimate(noise(seed, 32, rows)) for seed in range(150)]
    values = torch.tensor([f.value for f in found], dtype=torch.float64)
    assert abs(float(values.mean())) < 3.5 * float(values.std()) / math.sqrt(len(values))
    assert sum(f.low <= 0 <= f.high for f in found) >= 0.9 * len(found)


@every_score
def test_signal_is_told_from_noise_and_more_samples_agree_on_it(name: str) -> None:
    few, many = (SCORES[name].estimate(signal(samples=samples)) for samples in (128, 2048))
    assert few.low > 0
    assert few.low < many.value < few.high
    assert many.spread < few.spread


@every_score
def test_mixing_the_old_columns_and_the_order_of_batches_change_nothing(name: str) -> None:
    plain, score = signal(), SCORES[name]
    mixing = torch.linalg.qr(randn(OLD, OLD, seed=9))[0]
    expected = score.estimate(plain).value
    assert score.estimate(replace(plain, old=plain.old @ mixing)).value == pytest.approx(expected, rel=1e-7)
    order = torch.arange(N).view(-1, 8)[torch.tensor([3, 0, 7, 1, 5, 6, 2, 4])].flatten()  # halves stay together
    moved = Junction(plain.gradients[order], plain.new[order], plain.old[order], plain.inputs[order], plain.units)
    assert score.estimate(moved).value == pytest.approx(expected, rel=1e-7)


@every_score
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


@every_score
@pytest.mark.parametrize(("samples", "rows"), [(8, 1), (40, 1), (24, 4)])
def test_flops_are_never_more_than_foretold(name: str, samples: int, rows: int) -> None:
    plain = noise(0, samples, rows)
    with FlopCount() as count:
        SCORES[name].estimate(plain)
    assert 0 < count.flops <= SCORES[name].flops(plain.shape)


@every_score
def test_bytes_are_stated_and_refused_before_anything_is_allocated(name: str) -> None:
    plain = signal()
    needed = SCORES[name].measure("conv1", plain, MAX_BYTES).num_bytes
    with pytest.raises(BudgetError, match=rf"conv1: {name} takes {needed} bytes, allowed are {needed - 1}"):
        SCORES[name].measure("conv1", plain, needed - 1)


@every_score
@pytest.mark.parametrize(("samples", "rows", "columns"), [(64, 1, 1), (24, 4, 1), (48, 1, 60), (256, 1, 12)])
def test_it_stays_within_the_bytes_that_it_states(name: str, samples: int, rows: int, columns: int) -> None:
    plain = noise(0, samples, rows)
    assert plain.inputs is not None
    wide = Junction(
        gradients=plain.gradients.float().repeat(1, 1, columns),
        new=plain.new.float(),
        old=plain.old.float().repeat(1, 1, columns),
        inputs=plain.inputs.float().repeat(1, 1, columns),
        units=NEW,
    )
    SCORES[name].estimate(wide)  # what torch keeps from a first call is not counted
    with LiveStorages() as live:
        for rows_of in (wide.gradients, wide.new, wide.old, wide.inputs):
            live.set_apart(rows_of)  # a view of the rows takes nothing
        live.peak_bytes = 0
        SCORES[name].estimate(wide)
    assert live.peak_bytes <= ALLOWANCE * SCORES[name].workspace_bytes(wide.shape)


@every_score
def test_the_same_rows_give_the_same_score_and_nothing_else_is_touched(name: str) -> None:
    plain, untouched = signal(), signal()
    state = torch.get_rng_state()
    assert SCORES[name].estimate(plain) == SCORES[name].estimate(plain)
    assert torch.equal(torch.get_rng_state(), state)
    for field in ("gradients", "new", "old", "inputs"):
        assert torch.equal(getattr(plain, field), getattr(untouched, field))
