"""What a run remembers and what an outcome teaches: history, calibration, bans, strictness, experience, budget."""

from __future__ import annotations

import json
import math

import pytest

from morphogenesis.made_up import candidate, config, context
from neuroexapt.config import MorphogenesisConfig
from neuroexapt.morphogenesis.assay import Assay
from neuroexapt.morphogenesis.budget import budget_of
from neuroexapt.morphogenesis.experience import Experience
from neuroexapt.morphogenesis.history import MAX_LOSSES, History
from neuroexapt.morphogenesis.policies import greedy
from neuroexapt.morphogenesis.proposal import Proposal
from neuroexapt.morphogenesis.triggers import Firing
from neuroexapt.morphogenesis.verdict import Verdict, judge
from neuroexapt.surgery import Budget

WON, LOST = judge(1.0, 0.96, 0.0, config()), judge(1.0, 1.04, 0.0, config())


def after(losses: list[float]) -> History:
    history = History()
    for loss in losses:
        history.add_epoch(loss)
    return history


def proposal(*ranked: Assay, trigger: str = "interval", num_edits: int = 1) -> Proposal:
    return Proposal(Firing(trigger, "why"), ranked, num_edits, step_length=0.1)


def test_history_is_bounded_and_goes_to_json_and_back() -> None:
    history = after([float(i) for i in range(MAX_LOSSES + 50)])
    history.learn("Widen", 0.1, 0.3)
    history.bans.fail("Widen@a", 3.5, 2.0)
    assert len(history.losses) == MAX_LOSSES
    assert history.losses[-1] == MAX_LOSSES + 49
    loaded = History()
    loaded.load(json.loads(json.dumps(history.to_json())))
    assert loaded == history
    assert after([math.nan]).losses == [math.inf]


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


def test_an_event_tells_what_was_scored_and_never_that_the_evidence_chose_what_was_not() -> None:
    now = context(config(policy="greedy"))
    found = [candidate("a"), candidate("b", -1.0, order=1), candidate("c", -2.0, order=2)]
    event = proposal(*greedy(found, now)).event(now, 9)
    assert (event.description, event.num_samples, event.num_scored, event.trial_steps) == ("Widen a", 0, 2, 9)
    assert event.evidence_choice == "Widen b"
    assert [other["evidence"] for other in event.runners_up] == [0.0, 0.0]
    unscored = proposal(*found[::-1]).event(now, 9).runners_up[-1]
    assert (unscored["evidence"], unscored["score"]) == (None, None)


@pytest.mark.parametrize("verdict", [WON, LOST], ids=["kept", "rolled back"])
def test_an_outcome_is_counted_and_a_failure_banned_for_a_while(verdict: Verdict) -> None:
    history, experience, kept = after([1.0] * 5), Experience(), verdict.accepted
    tried = proposal(candidate("a", 2.0))
    assert tried.prediction(history) == pytest.approx(0.2)
    tried.learn(verdict, history, experience, MorphogenesisConfig(ban_epochs=3.0, adapt_rate=0.3, target_success=0.5))
    assert (history.num_accepted, history.num_rolled_back) == (int(kept), int(not kept))
    assert history.last_event == 5
    assert history.factor("Widen") == pytest.approx((1 + max(verdict.gain, 0) / 0.2) / 2)
    assert history.edits_at == ({"Widen@a": 1} if kept else {})
    assert history.bans.is_banned("Widen@a", 7.9) != kept
    assert not history.bans.is_banned("Widen@a", 8.0)
    assert history.strictness == {"interval": pytest.approx(math.exp(-0.15 if kept else 0.15))}
    assert experience.mean("Widen") == pytest.approx(verdict.net_gain / 2)


def test_edits_that_were_tried_together_share_what_they_gained() -> None:
    history, experience = after([1.0]), Experience()
    both = proposal(candidate("a", 2.0), candidate("b", kind="InsertLayer"), candidate("c"), num_edits=2)
    both.learn(WON, history, experience, config())
    assert history.num_accepted == 1
    assert history.edits_at == {"Widen@a": 1, "InsertLayer@b": 1}
    alone = Experience()
    alone.learn("Widen", WON.net_gain / 2, 0.5)
    alone.learn("InsertLayer", WON.net_gain / 2, 0.5)
    assert experience == alone


@pytest.mark.parametrize(
    ("verdict", "count"),
    [
        (Verdict.failed("it could not be made"), 0),
        (Verdict.untried(0.1, is_exact=True), 0),
        (judge(math.nan, 1.0, 0.0, config()), 0),
        (judge(1.0, math.nan, 0.0, config()), 1),  # it blew up: that is an outcome
    ],
)
def test_what_was_not_measured_teaches_nothing(verdict: Verdict, count: int) -> None:
    history, experience = after([1.0]), Experience()
    proposal(candidate("a", 2.0)).learn(verdict, history, experience, config())
    assert history.calibration == {}
    assert experience.count("Widen") == count


def test_an_edit_that_was_asked_for_moves_no_threshold() -> None:
    history = after([1.0])
    proposal(candidate("a"), trigger="").learn(LOST, history, Experience(), config())
    assert history.strictness == {}


def test_events_without_a_candidate_count_as_events() -> None:
    history = History(num_accepted=2, num_rolled_back=3, num_empty=4)
    assert history.num_events == 9


def test_the_budget_is_relative_to_the_seed_network() -> None:
    budget = budget_of(MorphogenesisConfig(max_parameter_ratio=2.0, max_flop_ratio=1.5, max_bytes=7), 100, 1000, 32)
    assert budget == Budget(parameters=200, flops_per_sample=1500, bytes=7, batch_size=32)
