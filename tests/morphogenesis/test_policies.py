"""Where: each policy on candidates whose right order is known."""

from __future__ import annotations

import pytest
import torch

from morphogenesis.made_up import candidate, config, context
from neuroexapt.morphogenesis.experience import Experience
from neuroexapt.morphogenesis.history import History
from neuroexapt.morphogenesis.policies import greedy, predicted, scheduled, score, thompson, uniform


def test_uniform_takes_every_place_in_turn() -> None:
    places, history, order = [candidate(name, order=i) for i, name in enumerate("abc")], History(), []
    for _ in range(7):
        choice = uniform(places, context(history=history))[0]
        order.append(choice.mutation.place)
        history.edits_at[choice.place] = history.edits_at.get(choice.place, 0) + 1
    assert "".join(order) == "abcabca"


def test_greedy_ranks_by_calibrated_gain_per_added_flop() -> None:
    history = History()
    found = [candidate("a", 4.0, 100), candidate("b", 3.0, 10), candidate("c", -9.0), candidate("d", order=1)]
    assert [a.mutation.place for a in greedy(found, context(history=history))] == ["b", "a", "c", "d"]
    assert score(found[0], history) == pytest.approx(0.04)
    assert predicted(found[2], history) == 0.0
    inserted = candidate("e", 1.0, 100, kind="InsertLayer")
    assert greedy([found[0], inserted], context(history=history))[0] is found[0]
    history.learn("InsertLayer", 0.1, 10.0)
    assert greedy([found[0], inserted], context(history=history))[0] is inserted
    assert score(candidate("f", 1.0, flops=0), history) == score(candidate("f", 1.0, flops=-7), history) == 1.0


def test_greedy_takes_free_gains_first_and_where_none_is_promised_what_saves_most() -> None:
    found = [
        candidate("grows for nothing", 0.0, 50),
        candidate("saves little", None, -10, kind="RemoveLayer"),
        candidate("dear", 1.0, 1000),
        candidate("saves and gains a little", 0.1, -500),
        candidate("saves much", None, -400, kind="RemoveLayer"),
        candidate("gains for nothing", 0.5, 0),
        candidate("cheap", 0.9, 10),
    ]
    assert [assay.mutation.place for assay in greedy(found, context())] == [
        "gains for nothing", "saves and gains a little", "cheap", "dear", "saves much", "saves little",
        "grows for nothing",
    ]  # fmt: skip


def test_scheduled_lets_kinds_go_in_turn() -> None:
    settings = config(policy="scheduled", sequence=("InsertLayer", "Widen", "Widen"))
    found = [candidate("a"), candidate("b", kind="InsertLayer", order=1), candidate("c", order=2)]
    turns = [[a.description for a in scheduled(found, context(settings, num_events=n))] for n in range(4)]
    widened = ["Widen a", "Widen c"]
    assert turns == [["InsertLayer b"], widened, widened, ["InsertLayer b"]]
    assert scheduled([found[0]], context(settings, num_events=0)) == []


def first_kinds(experience: Experience, aversion: float = 0.0, count: int = 200) -> list[str]:
    found, generator = [candidate("a"), candidate("b", kind="InsertLayer")], torch.Generator().manual_seed(4)
    settings = config(risk_aversion=aversion)
    kinds = []
    for _ in range(count):
        now = context(settings, experience=experience, generator=generator)
        kinds.append(type(thompson(found, now)[0].mutation).__name__)
    return kinds


def test_thompson_takes_what_is_worth_more_more_and_more_often() -> None:
    """InsertLayer gains 4 % and Widen 1 %, each +- 3 %; only what is tried is learnt."""
    found, noise = [candidate("a"), candidate("b", kind="InsertLayer")], torch.Generator().manual_seed(1)
    shares = []
    for run in range(20):
        experience, choices = Experience(), []
        for event in range(40):
            settings = config(risk_aversion=0.0)
            choice = thompson(found, context(settings, experience=experience, seed=1000 * run + event))[0]
            kind = type(choice.mutation).__name__
            choices.append(kind == "InsertLayer")
            gain = (0.04 if choices[-1] else 0.01) + 0.03 * float(torch.randn((), generator=noise))
            experience.learn(kind, gain)
        shares.append([sum(choices[:5]) / 5, sum(choices[5:20]) / 15, sum(choices[20:]) / 20])
    early, middle, late = torch.tensor(shares).mean(dim=0).tolist()
    assert early < middle < late
    assert late > 0.85


def test_thompson_keeps_trying_what_it_knows_little_of() -> None:
    experience = Experience()
    for _ in range(30):
        experience.learn("Widen", 0.01)
    assert 0.3 < first_kinds(experience).count("InsertLayer") / 200 < 0.6


def test_aversion_leaves_kinds_alone_whose_outcomes_scatter() -> None:
    experience = Experience()
    for sign in (1, -1) * 10:
        experience.learn("Widen", 0.02 + 0.01 * sign)
        experience.learn("InsertLayer", 0.04 + 0.15 * sign)
    shares = [first_kinds(experience, aversion).count("InsertLayer") / 200 for aversion in (0.0, 0.2, 1.0)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.55
    assert shares[1] < shares[0] - 0.1
    assert shares[2] < 0.02


def test_within_a_kind_thompson_follows_the_evidence_and_else_takes_turns() -> None:
    history = History(edits_at={"Widen@a": 1})
    values = {"a": None, "b": None, "c": 1.0, "d": 2.0, "e": -1.0}
    found = [candidate(name, value, order=i) for i, (name, value) in enumerate(values.items())]
    ordered = thompson(found, context(history=history))
    assert [assay.mutation.place for assay in ordered] == ["d", "c", "b", "e", "a"]
