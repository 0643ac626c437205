"""When: each trigger on runs whose right answer is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from morphogenesis.made_up import config, moment
from neuroexapt.config import MorphogenesisConfig
from neuroexapt.morphogenesis.triggers import Moment, why_now
from neuroexapt.morphogenesis.triggers.evidence import evidence
from neuroexapt.morphogenesis.triggers.interval import interval
from neuroexapt.morphogenesis.triggers.plateau import plateau
from neuroexapt.morphogenesis.triggers.schedule import schedule


def events(settings: MorphogenesisConfig, *, trial: float = 0.0, epochs: int = 10, per_epoch: int = 20) -> list[float]:
    """Positions at which events begin in a run of which each takes so many epochs."""
    begun: list[float] = []
    busy_until = last_event = 0.0
    for step in range(1, epochs * per_epoch + 1):
        position = step / per_epoch
        if position < busy_until - 1e-9:
            continue
        last_event = busy_until
        now = moment(
            settings, position=position, losses=[1.0 / e for e in range(1, int(position) + 1)],
            last_event=last_event, num_events=len(begun),
        )  # fmt: skip
        if why_now(now, {}) is not None:
            begun.append(position)
            busy_until = position + trial
    return begun


def test_events_come_at_the_interval_and_only_between_first_and_last() -> None:
    every = {"triggers": ("interval",), "interval_epochs": 2.5}
    assert events(config(**every)) == [2.5, 5.0, 7.5, 10.0]
    assert events(config(**every, first_epoch=4.0)) == [4.0, 6.5, 9.0]
    assert events(config(**every, last_epoch=5.0)) == [2.5, 5.0]
    assert events(config(**every), trial=0.5) == [2.5, 5.5, 8.5]
    assert interval(moment(config(interval_epochs=2.0), position=4, strictness=2.0)) == "every 4 epochs"
    assert not interval(moment(config(interval_epochs=2.0), position=4, strictness=2.1))


def test_a_schedule_is_kept_to_the_step() -> None:
    settings = config(triggers=("schedule",), schedule_epochs=(0.5, 1.25, 4.0, 9.0))
    assert events(settings) == [0.5, 1.25, 4.0, 9.0]
    assert schedule(moment(settings, position=1.3, last_event=0.6, num_events=1)) == "scheduled at 1.25 epochs"


def test_a_scheduled_event_that_could_not_be_in_time_is_made_up_once() -> None:
    settings = {"triggers": ("schedule",), "schedule_epochs": (1.0, 1.25, 4.0)}
    assert events(config(**settings), trial=1.0) == [1.0, 2.0, 4.0]
    assert events(config(**settings, cooldown_epochs=0.5), trial=1.0) == [1.0, 2.5, 4.0]
    assert events(config(**settings, first_epoch=2.0), trial=0.5) == [2.0, 2.5, 4.0]
    assert events(config(**settings, last_epoch=3.0)) == [1.0, 1.25]


def test_before_the_first_event_there_is_nothing_to_cool_down_from() -> None:
    assert events(config(triggers=("schedule",), schedule_epochs=(1.0, 2.0), cooldown_epochs=5.0)) == [1.0, 6.0]


def test_events_of_other_triggers_before_it_do_not_use_up_a_schedule() -> None:
    settings = config(triggers=("interval", "schedule"), schedule_epochs=(5.0,), interval_epochs=3.0)
    assert events(settings) == [3.0, 5.0, 8.0]


def falling(fall: float, noise: float, length: int, count: int = 200) -> list[Moment]:
    """Windows of runs whose loss falls by a fraction an epoch, with noise of a relative standard deviation."""
    draws = torch.randn(count, length, generator=torch.Generator().manual_seed(length), dtype=torch.float64)
    curves = torch.exp(-fall * torch.arange(length, dtype=torch.float64)) * (1 + noise * draws)
    settings = config(plateau_epochs=length, plateau_min_slope=0.005)
    return [moment(settings, position=length, losses=curve) for curve in curves.tolist()]


def share_of_plateaus(moments: list[Moment]) -> float:
    return sum(bool(plateau(now)) for now in moments) / len(moments)


@pytest.mark.parametrize("length", [4, 5, 8])
@pytest.mark.parametrize("noise", [0.001, 0.01, 0.1])
def test_a_flat_curve_is_a_plateau_however_noisy(length: int, noise: float) -> None:
    assert share_of_plateaus(falling(0.0, noise, length)) >= 0.9


@pytest.mark.parametrize(("fall", "noise"), [(0.0075, 0.001), (0.03, 0.01), (0.06, 0.02), (0.2, 0.05)])
def test_a_steadily_falling_curve_is_none(fall: float, noise: float) -> None:
    assert share_of_plateaus(falling(fall, noise, 5)) <= 0.03


def test_a_rising_curve_and_one_that_falls_too_slowly_are_plateaus() -> None:
    assert share_of_plateaus(falling(-0.02, 0.01, 5)) == 1.0
    slow = falling(0.004, 0.0001, 5)
    assert share_of_plateaus(slow) == 1.0
    assert share_of_plateaus([replace(now, strictness=2.0) for now in slow]) == 0.0


@pytest.mark.parametrize(
    ("losses", "is_plateau"),
    [
        ([1.0, 0.9], False),  # too few
        ([1.0, 0.9, 0.8], False),
        ([1.0, 0.8, 0.8, 0.8], True),  # what was before the window does not count
        ([-1.0, -1.1, -1.2], False),
        ([-1.0, -1.0, -1.0], True),
        ([0.0, 0.0, 0.0], True),  # nothing is left to gain, but something to save
        ([1.0, 0.9, math.inf], True),
        ([math.inf, math.inf, 0.5], False),
    ],
)
def test_any_losses_have_an_answer(losses: list[float], is_plateau: bool) -> None:
    settings = config(plateau_epochs=3, plateau_min_slope=0.01)
    assert bool(plateau(moment(settings, position=len(losses), losses=losses))) == is_plateau


def test_a_plateau_is_looked_for_at_epoch_ends_since_the_latest_event() -> None:
    settings = config(plateau_epochs=3)
    assert plateau(moment(settings, position=6, last_event=4.0, num_events=1))
    assert not plateau(moment(settings, position=6, last_event=4.1, num_events=1))
    assert not plateau(moment(settings, position=6.5))


def test_a_plateau_says_what_it_saw() -> None:
    now = moment(config(plateau_epochs=3), position=3, losses=[1.0, 1.01, 1.03])
    assert plateau(now) == "the loss changes by +1.49 % an epoch (+0.99 to +1.98)"


@pytest.mark.parametrize(
    ("need", "strictness", "fires"),
    [(0.6, 1.0, True), (0.59, 1.0, False), (0.79, 2.0, False), (0.81, 2.0, True), (0.6, 0.2, True), (0.5, 0.2, False)],
)
def test_evidence_fires_on_a_need_at_its_threshold_which_strictness_moves(
    need: float, strictness: float, fires: bool
) -> None:
    now = moment(config(need_threshold=0.6), position=3, highest_need=lambda: need, strictness=strictness)
    assert bool(evidence(now)) == fires


def test_the_first_trigger_of_the_list_that_fires_counts_and_later_ones_are_not_asked() -> None:
    asked: list[bool] = []
    for triggers, expected in ((("interval", "evidence"), "interval"), (("evidence", "interval"), "evidence")):
        asked.clear()
        now = moment(config(triggers=triggers), position=4, highest_need=lambda: asked.append(True) or 1.0)
        firing = why_now(now, {})
        assert firing is not None
        assert firing.trigger == expected
        assert bool(asked) == (expected == "evidence")
    strict = why_now(moment(config(triggers=("interval", "plateau")), position=6), {"interval": 8.0})
    assert strict is not None
    assert strict.trigger == "plateau"
