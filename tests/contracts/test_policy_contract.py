"""What every policy keeps to, without a line for any of them."""

from __future__ import annotations

import random
from copy import deepcopy

import pytest
import torch

from morphogenesis.made_up import KINDS, candidate, context
from neuroexapt.morphogenesis.assay import Assay
from neuroexapt.morphogenesis.experience import Experience
from neuroexapt.morphogenesis.history import History
from neuroexapt.morphogenesis.policies import POLICIES

every_policy = pytest.mark.parametrize("name", POLICIES)


def crowd() -> list[Assay]:
    """Candidates of all kinds, with and without evidence; FLOPs added, saved, none, and huge."""
    deltas, values = (100, -100, 0, 10**15, 1), (None, 2.0, -3.0, 0.0, 1e-30, 1e30)
    found = [(kind, flops, value) for kind in KINDS for flops in deltas for value in values]
    return [candidate(f"p{i}", value, flops, kind, order=i) for i, (kind, flops, value) in enumerate(found)]


def past() -> tuple[History, Experience]:
    history, experience = History(edits_at={"Widen@p0": 2, "InsertLayer@p31": 1}), Experience()
    history.learn("InsertLayer", 0.1, 0.3)
    for gain in (0.02, -0.01, 0.03):
        experience.learn("Widen", gain)
    experience.learn("RemoveLayer", -0.2)
    return history, experience


def order(name: str, found: list[Assay], seed: int = 0, num_events: int = 0) -> list[str]:
    history, experience = past()
    now = context(history=history, experience=experience, seed=seed, num_events=num_events)
    return [assay.description for assay in POLICIES[name](found, now)]


@every_policy
@pytest.mark.parametrize("num_events", [0, 1, 2, 7])
def test_candidates_come_once_each_and_kinds_as_a_whole_or_not_at_all(name: str, num_events: int) -> None:
    found = crowd()
    ordered = order(name, found, num_events=num_events)
    assert ordered
    assert len(set(ordered)) == len(ordered)
    kinds = {description.split()[0] for description in ordered}
    assert set(ordered) == {assay.description for assay in found if type(assay.mutation).__name__ in kinds}


@every_policy
def test_the_same_generator_gives_the_same_order_whatever_order_candidates_come_in(name: str) -> None:
    found = crowd()
    shuffled = random.Random(5).sample(found, len(found))
    for seed in range(5):
        assert order(name, shuffled, seed) == order(name, found, seed)


@every_policy
def test_a_policy_changes_nothing_and_draws_from_its_own_generator_only(name: str) -> None:
    found, (history, experience), state = crowd(), past(), torch.get_rng_state()
    before, seen = deepcopy((history, experience)), list(found)
    random.seed(3)
    python_state = random.getstate()
    POLICIES[name](found, context(history=history, experience=experience))
    assert (history, experience) == before
    assert found == seen
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python_state


@every_policy
def test_nothing_to_choose_from_is_no_choice_and_one_candidate_is_it(name: str) -> None:
    assert order(name, []) == []
    assert order(name, [candidate("a")]) == ["Widen a"]


@every_policy
def test_of_two_places_that_differ_in_nothing_the_first_of_the_model_goes_first(name: str) -> None:
    twins = [candidate("b", order=2), candidate("a", order=1), candidate("c", order=3)]
    assert order(name, twins) == ["Widen a", "Widen b", "Widen c"]
