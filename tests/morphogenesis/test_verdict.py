"""Whether an edit stays: paired gains, their doubt, what a cost has to be worth."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from neuroexapt.config import MorphogenesisConfig
from neuroexapt.errors import InputError
from neuroexapt.morphogenesis.verdict import cost_of, judge

PLAIN = {"min_gain": 0.0, "cost_weight": 0.0, "risk_aversion": 0.0}


def config(**settings: float) -> MorphogenesisConfig:
    return MorphogenesisConfig(**(PLAIN | settings))  # type: ignore[arg-type]


def losses(generator: torch.Generator, *shape: int) -> Tensor:
    """Skewed as cross-entropies are: most samples are easy and a few are not."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64).mul(1.2).exp()


def pairs(count: int, size: int, gain: float) -> list[tuple[Tensor, Tensor]]:
    """Control and trial of samples that are hard for both, with a true relative gain."""
    generator = torch.Generator().manual_seed(7)
    hard = losses(generator, count, size)
    noise = 0.3 * torch.randn(2, count, size, generator=generator, dtype=torch.float64)
    return list(zip(hard * (1 + noise[0]), hard * (1 - gain) * (1 + noise[1]), strict=True))


@pytest.mark.parametrize(
    ("control", "trial", "accepted"),
    [
        (1.0, 0.98, True),
        (1.0, 0.995, False),
        (1.0, 1.0, False),
        (-1.0, -1.02, True),
        (-1.0, -0.98, False),
        (0.0, 0.0, False),
        (0.0, 0.1, False),
        (0.0, -0.1, True),
        (math.nan, 0.9, True),
        (math.inf, 0.9, True),
        (1.0, math.nan, False),
        (1.0, math.inf, False),
        (math.nan, math.nan, False),
    ],
)
def test_an_edit_stays_if_its_gain_is_more_than_asked_for_and_it_is_finite(
    control: float, trial: float, accepted: bool
) -> None:
    verdict = judge(control, trial, 0.0, config(min_gain=0.01))
    assert verdict.accepted == accepted
    assert verdict.reason
    assert verdict.low == verdict.relative_gain == verdict.high
    if not math.isfinite(trial):
        assert verdict.gain == verdict.net_gain == -math.inf


def test_equal_losses_are_no_gain_even_when_none_is_asked_for() -> None:
    assert not judge(0.5, 0.5, 0.0, config()).accepted


def test_a_verdict_says_the_gain_its_interval_and_what_was_asked_for() -> None:
    control = torch.tensor([2.0, 1.0, 3.0, 2.0])
    verdict = judge(control, control - torch.tensor([0.1, 0.0, 0.1, 0.2]), 1.0, config(cost_weight=0.01))
    assert verdict.gain == pytest.approx(0.1)
    assert verdict.relative_gain == pytest.approx(0.05)
    assert verdict.net_gain == pytest.approx(0.04)
    assert verdict.low < 0.05 < verdict.high
    assert verdict.reason == f"a gain of 5.00 % ({100 * verdict.low:.2f} to {100 * verdict.high:.2f}), more than 1.00 %"


def test_a_cost_is_one_for_e_times_the_network_and_negative_for_a_smaller_one() -> None:
    assert cost_of(math.e, math.e) == pytest.approx(1.0)
    assert cost_of(2.0, 0.5) == pytest.approx(0.0)
    assert cost_of(0.5, 0.5) == pytest.approx(-math.log(2))


def test_shrinking_may_cost_a_little_loss_and_growing_has_to_be_worth_it() -> None:
    half, double, settings = cost_of(0.5, 0.5), cost_of(2.0, 2.0), config(cost_weight=0.01)
    assert judge(1.0, 1.005, half, settings).accepted
    assert not judge(1.0, 1.008, half, settings).accepted
    assert not judge(1.0, 0.995, double, settings).accepted
    assert judge(1.0, 0.992, double, settings).accepted
    assert judge(1.0, 1.005, half, settings).net_gain > 0 > judge(1.0, 0.995, double, settings).net_gain


@pytest.mark.parametrize(("aversion", "share"), [(1.0, 0.159), (1.65, 0.05)])
def test_of_edits_without_effect_only_the_stated_share_is_kept(aversion: float, share: float) -> None:
    found = [judge(*pair, 0.0, config(risk_aversion=aversion)).accepted for pair in pairs(600, 200, 0.0)]
    assert sum(found) / len(found) == pytest.approx(share, abs=3 * math.sqrt(share * (1 - share) / len(found)))


def test_the_interval_holds_the_true_gain_as_often_as_it_says() -> None:
    found = [judge(*pair, 0.0, config()) for pair in pairs(400, 200, 0.1)]
    assert 0.92 <= sum(v.low <= 0.1 <= v.high for v in found) / len(found) <= 0.98


def test_pairing_finds_a_gain_that_the_means_alone_would_not_show() -> None:
    control = losses(torch.Generator().manual_seed(1), 500)
    trial = control * 0.99
    verdict = judge(control, trial, 0.0, config(risk_aversion=3.0))
    assert verdict.accepted
    assert float(control.std()) / math.sqrt(500) > 5 * verdict.gain
    assert verdict.high - verdict.low < 1e-12  # every loss is lower by the same fraction
    shuffled = judge(control, trial.flip(0), 0.0, config(risk_aversion=3.0))
    assert not shuffled.accepted
    assert shuffled.relative_gain == pytest.approx(verdict.relative_gain)


def test_a_single_sample_or_a_mean_beside_a_tensor_has_no_interval() -> None:
    one, many = torch.tensor([1.0]), torch.tensor([1.0, 2.0, 3.0])
    for control, trial in ((one, one * 0.9), (torch.tensor(1.0), 0.9), (2.0, many * 0.9), (many, 1.8)):
        verdict = judge(control, trial, 0.0, config(risk_aversion=3.0))
        assert verdict.accepted
        assert verdict.low == verdict.high == pytest.approx(0.1)


def test_losses_of_different_samples_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \[3\] and \[2\]"):
        judge(torch.ones(3), torch.ones(2), 0.0, config())
