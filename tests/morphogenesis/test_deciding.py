"""When, where and whether: triggers, bans, budget, policies, calibration, verdicts."""

from __future__ import annotations

import math
from typing import Any

import pytest

from neuroexapt.analysis import Evidence
from neuroexapt.config import MorphogenesisConfig
from neuroexapt.morphogenesis.assay import Assay
from neuroexapt.morphogenesis.budget import budget_of
from neuroexapt.morphogenesis.history import MAX_LOSSES, History
from neuroexapt.morphogenesis.policies import by_evidence, predicted, score, uniform
from neuroexapt.morphogenesis.proposal import Proposal
from neuroexapt.morphogenesis.triggers import why_now
from neuroexapt.morphogenesis.verdict import Verdict, judge
from neuroexapt.surgery import MUTATIONS, Budget


def after(losses: list[float], last_event: int = 0, num_accepted: int = 0) -> History:
    history = History(last_event=last_event, num_accepted=num_accepted)
    for loss in losses:
        history.add_loss(loss)
    return history


def config(**settings: Any) -> MorphogenesisConfig:
    plain = {"first_epoch": 0, "interval_epochs": 4, "plateau_epochs": 9, "max_events": 3}
    return MorphogenesisConfig(**(plain | settings))


def epochs_of_events(settings: MorphogenesisConfig, num_epochs: int) -> list[int]:
    found, history = [], History()
    for epoch in range(1, num_epochs + 1):
        history.add_loss(1.0 / epoch)
        if why_now(settings, history):
            found.append(epoch)
            history.last_event = epoch
    return found


def test_events_come_at_the_interval_and_only_between_first_and_last() -> None:
    assert epochs_of_events(config(), 13) == [4, 8, 12]
    assert epochs_of_events(config(first_epoch=6), 13) == [6, 10]
    assert epochs_of_events(config(last_epoch=9), 13) == [4, 8]
    assert epochs_of_events(config(interval_epochs=1), 3) == [1, 2, 3]


def test_a_fresh_run_has_no_event_and_a_full_one_no_more() -> None:
    assert not why_now(config(), History())
    assert why_now(config(), after([1.0] * 4)) == "every 4 epochs"
    assert not why_now(config(), after([1.0] * 4, num_accepted=3))
    assert not why_now(config(max_events=0), after([1.0] * 4))


@pytest.mark.parametrize(
    ("losses", "is_plateau"),
    [
        ([1.0, 0.9, 0.9, 0.9], True),
        ([1.0, 0.9, 0.895, 0.895], True),  # less than one percent
        ([1.0, 0.9, 0.9, 0.88], False),
        ([1.0, 1.1, 1.2, 1.3], True),
        ([1.0, 0.9], False),  # nothing to compare with
        ([-1.0, -1.1, -1.1, -1.1], True),
        ([-1.0, -1.1, -1.1, -1.3], False),
        ([0.0, 0.0, 0.0, 0.0], False),  # nothing is left to gain
        ([1.0, 0.9, math.nan, math.nan], True),
        ([math.nan, math.nan, math.nan, 0.5], True),
    ],
)
def test_a_plateau_is_no_fall_by_a_fraction_of_the_best(losses: list[float], is_plateau: bool) -> None:
    settings = config(interval_epochs=20, plateau_epochs=2, plateau_min_delta=0.01)
    assert bool(why_now(settings, after(losses))) == is_plateau


def test_a_plateau_waits_until_the_latest_event_is_as_long_ago() -> None:
    settings = config(interval_epochs=20, plateau_epochs=2)
    assert not why_now(settings, after([1.0] * 5, last_event=4))
    assert why_now(settings, after([1.0] * 6, last_event=4)) == "no progress for 2 epochs"


def test_history_is_bounded_and_goes_to_json_and_back() -> None:
    history = after([float(i) for i in range(MAX_LOSSES + 50)])
    history.learn("Widen", 0.1, 0.3)
    assert len(history.losses) == MAX_LOSSES
    assert history.losses[-1] == MAX_LOSSES + 49
    assert History(**history.to_json()) == history


def test_calibration_is_the_mean_ratio_with_a_prior_of_one() -> None:
    history = History()
    assert history.factor("Widen") == 1.0
    history.learn("Widen", 0.1, 0.3)
    assert history.factor("Widen") == pytest.approx((1 + 3) / 2)
    history.learn("Widen", 0.1, -5.0)  # a loss counts as no gain
    assert history.factor("Widen") == pytest.approx((1 + 3 + 0) / 3)
    history.learn("Widen", 0.0, 1.0)  # nothing was predicted, so nothing is learnt
    assert history.factor("Widen") == pytest.approx(4 / 3)
    assert history.factor("InsertLayer") == 1.0


def candidate(place: str, value: float | None = None, flops: int = 100, kind: str = "Widen") -> Assay:
    mutation = MUTATIONS["Widen"](axis=place, to=9) if kind == "Widen" else MUTATIONS["InsertLayer"](site=place)
    evidence = (
        None
        if value is None
        else Evidence(
            value=value, spread=0.1, low=value, high=value, num_samples=64, estimator="gradient norm", num_bytes=32
        )
    )
    return Assay(mutation, f"{kind} {place}", 10, flops, evidence)


def test_uniform_takes_every_place_in_turn() -> None:
    places, history, order = [candidate(name) for name in "abc"], History(), []
    for _ in range(7):
        choice = uniform(places, history)[0]
        order.append(choice.mutation.place)
        history.edits_at[choice.place] = history.edits_at.get(choice.place, 0) + 1
    assert "".join(order) == "abcabca"


def test_evidence_ranks_by_calibrated_value_per_added_flop() -> None:
    history = History()
    found = [candidate("a", 4.0, 100), candidate("b", 3.0, 10), candidate("c", -9.0), candidate("d")]
    assert [a.mutation.place for a in by_evidence(found, history)] == ["b", "a", "c", "d"]
    assert score(found[0], history) == pytest.approx(0.04)
    assert predicted(found[2], history) == 0.0
    inserted = candidate("e", 1.0, 100, kind="InsertLayer")
    assert by_evidence([found[0], inserted], history)[0] is found[0]
    history.learn("InsertLayer", 0.1, 10.0)
    assert by_evidence([found[0], inserted], history)[0] is inserted
    assert score(candidate("f", 1.0, flops=0), history) == 1.0


def test_an_event_tells_what_was_scored_and_never_that_the_evidence_chose_what_was_not() -> None:
    history = History()
    ranked = by_evidence([candidate("a"), candidate("b", -1.0), candidate("c", -2.0)], history)
    event = Proposal.of(ranked, 0.1, history).event("why", "evidence", history)
    assert (event.description, event.num_samples, event.num_scored) == ("Widen a", 0, 2)
    assert event.evidence_choice == "Widen b"
    assert [other["evidence"] for other in event.runners_up] == [0.0, 0.0]
    unscored = Proposal.of(ranked[::-1], 0.1, history).event("why", "uniform", history).runners_up[-1]
    assert (unscored["evidence"], unscored["score"]) == (None, None)


@pytest.mark.parametrize("accepted", [True, False])
def test_an_outcome_is_counted_and_a_failure_banned_for_a_while(accepted: bool) -> None:
    history = after([1.0] * 5)
    proposal = Proposal.of([candidate("a", 2.0)], 0.1, history)
    assert (proposal.first_order_gain, proposal.prediction) == pytest.approx((0.2, 0.2))
    proposal.learn(Verdict(accepted, 0.4, "why"), history, ban_epochs=3)
    assert (history.num_accepted, history.num_rolled_back) == (int(accepted), int(not accepted))
    assert history.last_event == 5
    assert history.factor("Widen") == pytest.approx(1.5)
    assert history.edits_at == ({"Widen@a": 1} if accepted else {})
    assert [history.is_banned("Widen@a")] == [not accepted]
    for _ in range(3):
        history.add_loss(1.0)
    assert not history.is_banned("Widen@a")


@pytest.mark.parametrize("gain", [math.nan, math.inf, -math.inf])
def test_what_was_not_measured_teaches_nothing(gain: float) -> None:
    history = after([1.0])
    Proposal.of([candidate("a", 2.0)], 0.1, history).learn(Verdict(False, gain, "why"), history, 3)
    assert history.calibration == {}


def test_the_budget_is_relative_to_the_seed_network() -> None:
    budget = budget_of(MorphogenesisConfig(max_parameter_ratio=2.0, max_flop_ratio=1.5, max_bytes=7), 100, 1000, 32)
    assert budget == Budget(parameters=200, flops_per_sample=1500, bytes=7, batch_size=32)


@pytest.mark.parametrize(
    ("control", "trial", "accepted"),
    [
        (1.0, 0.98, True),
        (1.0, 0.995, False),
        (1.0, 1.0, False),
        (-1.0, -1.02, True),
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
    verdict = judge(control, trial, 0.01)
    assert verdict.accepted == accepted
    assert verdict.reason


def test_equal_losses_are_no_gain_even_when_none_is_asked_for() -> None:
    assert not judge(0.5, 0.5, 0.0).accepted
