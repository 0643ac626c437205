"""What every trigger keeps to, without a line for any of them: purity, strictness, gates."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from morphogenesis.made_up import config, moment
from neuroexapt.morphogenesis.triggers import TRIGGERS, Moment, why_now

every_trigger = pytest.mark.parametrize("name", TRIGGERS)
OFTEN = {"interval_epochs": 1.0, "plateau_epochs": 3, "plateau_min_slope": 0.02}


def moments(count: int = 300) -> list[Moment]:
    """Of all sorts of runs: falling and flat, new and old, in the middle and at the end of an epoch."""
    draw, found = random.Random(1), []
    for _ in range(count):
        settings = config(
            interval_epochs=draw.uniform(0.5, 6),
            plateau_epochs=draw.randint(3, 6),
            plateau_min_slope=draw.choice([0.0, 0.01, 0.05]),
            need_threshold=draw.choice([0.0, 0.5, 0.9]),
        )
        position = float(draw.randint(0, 12)) if draw.random() < 0.7 else draw.uniform(0, 12)
        fall, noise = draw.choice([0.0, 0.02, 0.1]), draw.choice([0.0, 0.01, 0.1])
        losses = [(1 - fall) ** epoch * (1 + noise * draw.gauss(0, 1)) for epoch in range(int(position))]
        last_event = draw.choice([0.0, draw.uniform(0, position)])
        need = draw.random()
        found.append(
            moment(
                settings,
                position=position,
                losses=losses,
                last_event=last_event,
                num_events=draw.randint(1, 3) if last_event else 0,
                highest_need=lambda need=need: need,
            )
        )
    return found


def due(name: str, **settings: object) -> Moment:
    """A moment at which the trigger fires, as nothing is in its way."""
    now = moment(config(triggers=(name,), **OFTEN, **settings), position=8, highest_need=lambda: 1.0)
    assert TRIGGERS[name](now)
    return now


@every_trigger
def test_a_trigger_fires_sometimes_says_why_and_says_the_same_again(name: str) -> None:
    state, python_state = torch.get_rng_state(), random.getstate()
    found = moments()
    random.setstate(python_state)
    answers = [TRIGGERS[name](now) for now in found]
    assert random.getstate() == python_state
    assert torch.equal(torch.get_rng_state(), state)
    assert 0 < sum(bool(answer) for answer in answers) < len(answers)
    assert [TRIGGERS[name](now) for now in found] == answers
    assert found == [replace(now) for now in found]


@every_trigger
def test_a_stricter_trigger_fires_at_no_moment_at_which_a_laxer_one_does_not(name: str) -> None:
    for now in moments():
        fires = [bool(TRIGGERS[name](replace(now, strictness=strictness))) for strictness in (1 / 8, 0.5, 1, 2, 8)]
        assert fires == sorted(fires, reverse=True)


@every_trigger
def test_a_need_is_measured_once_at_most_and_never_within_an_epoch(name: str) -> None:
    for now in moments(100):
        asked: list[float] = []
        TRIGGERS[name](replace(now, highest_need=lambda asked=asked: asked.append(0) or 0.5))
        assert len(asked) <= (1 if now.at_epoch_end else 0)


@every_trigger
def test_a_run_that_has_not_begun_has_no_event(name: str) -> None:
    assert not TRIGGERS[name](moment(at_epoch_end=False))


@every_trigger
def test_a_firing_names_its_trigger_and_the_reason(name: str) -> None:
    now = due(name)
    firing = why_now(now, {})
    assert firing is not None
    assert (firing.trigger, firing.reason) == (name, TRIGGERS[name](now))


@every_trigger
@pytest.mark.parametrize(
    ("settings", "num_accepted", "seconds", "is_open"),
    [
        ({"first_epoch": 8.0}, 0, 0.0, True),
        ({"first_epoch": 8.1}, 0, 0.0, False),
        ({"last_epoch": 8.0}, 0, 0.0, True),
        ({"last_epoch": 7.9}, 0, 0.0, False),
        ({"max_events": 3}, 2, 0.0, True),
        ({"max_events": 3}, 3, 0.0, False),
        ({"max_events": 0}, 0, 0.0, False),
        ({"max_seconds": 10.0}, 0, 9.9, True),
        ({"max_seconds": 10.0}, 0, 10.0, False),
    ],
)
def test_no_event_begins_where_a_gate_is_shut(
    name: str, settings: dict[str, object], num_accepted: int, seconds: float, is_open: bool
) -> None:
    now = due(name, **settings)
    assert bool(why_now(now, {}, num_accepted=num_accepted, seconds=seconds)) == is_open


@every_trigger
@pytest.mark.parametrize(("strictness", "is_open"), [(1.0, True), (1.5, True), (1.6, False), (8.0, False)])
def test_a_network_cools_down_for_as_long_as_the_trigger_is_strict(name: str, strictness: float, is_open: bool) -> None:
    laxest = {**OFTEN, "interval_epochs": 0.1, "cooldown_epochs": 2.0, "plateau_min_slope": 0.1}
    asked: list[bool] = []
    now = moment(
        config(triggers=(name,), schedule_epochs=(1.0, 7.5), **laxest),
        position=8,
        last_event=5.0,
        num_events=1,
        highest_need=lambda: asked.append(True) or 1.0,
    )
    assert TRIGGERS[name](replace(now, strictness=strictness))
    asked.clear()
    assert bool(why_now(now, {name: strictness})) == is_open
    assert is_open or not asked


@every_trigger
def test_strictness_of_another_trigger_does_not_matter(name: str) -> None:
    others = {other: 8.0 for other in TRIGGERS if other != name}
    now = due(name, cooldown_epochs=1.0)
    assert why_now(now, others) == why_now(now, {}) is not None
