"""The one rule for names in the state dict after edits (docs/state_dict_names.md), for every kind there is."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from contracts.cases import CASES
from contracts.experiment import objective
from contracts.networks import batch, build
from neuroexapt.surgery import MUTATIONS, Mutation, Plan, Surgeon

PLACES = [case for kind in MUTATIONS for case in {n: (n, m) for n, m in CASES if type(m).__name__ == kind}.values()][
    ::3
]

PIECE = re.compile(r"(?P<site>.+)\.grafts\.\d+\..+")
PRUNED = ("_orig", "_mask")  # torch.nn.utils.prune


def lies_in(name: str, paths: Iterable[str]) -> bool:
    return any(name.startswith(f"{path}.") for path in paths)


def unexplained(before: list[str], after: list[str], modules: set[str], plan: Plan) -> list[str]:
    """Names that came or went and that the rule says nothing about."""
    left = [slot.path for stage in plan.stages for slot in stage.slots]
    filled = [f"{edit.module}.{edit.name}" for stage in plan.stages for edit in stage.parameters]
    new = set(after) - set(before)
    masked = {name.removesuffix(end) for name in new for end in PRUNED if name.endswith(end)}
    gone = [name for name in before if name not in after and name not in masked and not lies_in(name, left)]
    came = [
        name
        for name in after
        if name in new
        and not ((found := PIECE.fullmatch(name)) and found["site"].split(".grafts.")[0] in modules)
        and name not in filled
        and not lies_in(name, left)
        and not any(name == f"{of}{end}" and of in before for of in masked for end in PRUNED)
    ]
    return [*gone, *came]


@pytest.mark.parametrize(("network", "mutation"), PLACES, ids=[f"{n}-{type(m).__name__}" for n, m in PLACES])
def test_names_follow_the_rule_and_keep_their_order(network: str, mutation: Mutation) -> None:
    model = build(network)
    surgeon = Surgeon(model, batch(), objective=objective)
    before, modules = list(model.state_dict()), {path for path, _ in model.named_modules()}
    plan = surgeon.plan(mutation)
    surgeon.apply(mutation)
    after = list(model.state_dict())
    assert unexplained(before, after, modules, plan) == []
    assert [name for name in after if name in before] == [name for name in before if name in after]


def test_every_kind_is_looked_at() -> None:
    assert {type(mutation).__name__ for _, mutation in PLACES} == set(MUTATIONS)


def test_the_rule_finds_a_name_that_breaks_it() -> None:
    before, modules = ["a.weight", "a.bias"], {"", "a"}
    assert unexplained(before, ["a.weight"], modules, Plan()) == ["a.bias"]
    assert unexplained(before, [*before, "a.scale"], modules, Plan()) == ["a.scale"]
    assert unexplained(before, [*before, "b.grafts.0.scale"], modules, Plan()) == ["b.grafts.0.scale"]
    assert unexplained(before, [*before, "a.grafts.0.scale"], modules, Plan()) == []
    assert unexplained(before, ["a.bias", "a.weight_orig", "a.weight_mask"], modules, Plan()) == []
