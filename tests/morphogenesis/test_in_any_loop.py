"""What somebody's loop may get wrong, or leave out: told, refused or put right, never a wrong decision in silence."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.optim import SGD

from morphogenesis.stepwise import BATCH, INPUTS, SETTINGS, STEPS, Net, StepLoop
from neuroexapt.config import MorphogenesisConfig
from neuroexapt.errors import ConfigError, InputError
from neuroexapt.events import ProposalMade
from neuroexapt.morphogenesis import Morphogenesis


@pytest.fixture(autouse=True)
def fixture_global_generator_is_put_back() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


def engine(**settings: Any) -> Morphogenesis:
    model = Net()
    config = MorphogenesisConfig(**(SETTINGS | settings))
    return Morphogenesis(model, SGD(model.parameters(), lr=0.1), INPUTS[:BATCH], config)


def test_a_loop_that_can_judge_no_trial_is_told_at_its_first_epoch() -> None:
    of = engine()
    of.after_step(1.0)
    with pytest.raises(ConfigError, match=r"found no validation loss and no `validate`, needed one of them"):
        of.after_epoch()
    engine(max_events=0).after_epoch()
    engine(trial_epochs=0.0).after_epoch()


def test_a_plateau_that_nobody_tells_of_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            engine(trial_epochs=0.0, triggers=("interval", "plateau")).after_epoch()
    assert "the trigger 'plateau' will not fire" in caplog.text


@pytest.mark.parametrize(("said", "found"), [(4 * STEPS, STEPS), (1, STEPS), (STEPS + 1, STEPS + 1), (None, STEPS)])
def test_a_wrong_number_of_steps_is_put_right_after_the_first_epoch(
    said: int | None, found: int, caplog: pytest.LogCaptureFixture
) -> None:
    of = engine(max_events=0)
    of.history.steps_per_epoch = said or 0
    with caplog.at_level(logging.WARNING):
        for _ in range(STEPS):
            of.after_step(1.0)
        of.after_epoch(1.0)
    assert of.history.steps_per_epoch == found
    assert ("found 4 steps in the first epoch" in caplog.text) == (said not in (None, found))


@pytest.mark.parametrize("losses", [torch.tensor(0.7), torch.empty(0)], ids=["a mean", "of no data"])
def test_losses_that_are_not_one_per_sample_are_refused(losses: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"needed the loss of every validation sample \[n\]"):
        StepLoop(validate=lambda: losses).until(2)


def test_losses_may_carry_gradients_and_one_more_dimension() -> None:
    loop = StepLoop(validate=lambda: loop.losses().requires_grad_()[:, None] * 1.0, trial_epochs=0.5)
    loop.until(2)
    plain = StepLoop(trial_epochs=0.5).until(2)
    assert loop.state() == plain.state()
    reasons = [[verdict.reason for verdict in each.verdicts()] for each in (loop, plain)]
    assert reasons[0] == reasons[1] != []


def test_one_sample_that_is_not_a_number_condemns_the_trial() -> None:
    def losses() -> torch.Tensor:
        found = loop.losses()
        found[3] = float("nan") if loop.engine.arm == "trial" else found[3]
        return found

    loop = StepLoop(validate=losses, trial_epochs=0.5, risk_aversion=-3.0)
    loop.until(2)
    assert [(v.accepted, v.reason) for v in loop.verdicts()] == [(False, "the loss of the trial is not finite")]


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match=r"found 2 processes of torch.distributed, needed one"):
        engine()
    engine(max_events=0)


def test_an_interval_is_exact_beside_a_schedule_and_else_seen_at_epoch_ends() -> None:
    settings: dict[str, Any] = {"schedule_epochs": (1.25,), "trial_epochs": 0.5, "first_epoch": 1.25}
    for triggers, expected in ((("schedule", "interval"), [1.25, 2.75]), (("interval",), [2.0])):
        told = StepLoop(triggers=triggers, **settings).until(3).sink.of(ProposalMade)
        assert [event.position for event in told] == expected
