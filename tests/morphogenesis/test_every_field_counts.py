"""Every field of ``MorphogenesisConfig`` decides something: two values, two outcomes that are known beforehand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from morphogenesis.stepwise import StepLoop
from neuroexapt.config import MorphogenesisConfig
from neuroexapt.events import ProposalMade
from neuroexapt.morphogenesis.experience import Belief

BASE: dict[str, Any] = {"kinds": ("Widen",), "trial_epochs": 0.5, "risk_aversion": -3.0}


@dataclass(frozen=True)
class Case:
    """A field with the outcomes of two of its values."""

    outcome: Callable[[StepLoop], Any]
    expected: dict[Any, Any]  # value -> outcome
    besides: tuple[tuple[str, Any], ...] = ()
    length: float = 1.25  # epochs: one proposal
    evidence: bool = False
    losses: tuple[float, ...] = ()  # what each epoch is said to end with


def proposals(loop: StepLoop) -> list[ProposalMade]:
    return loop.sink.of(ProposalMade)


def positions(loop: StepLoop) -> list[float]:
    return [event.position for event in proposals(loop)]


def first(name: str) -> Callable[[StepLoop], Any]:
    return lambda loop: getattr(proposals(loop)[0], name)


def kinds(loop: StepLoop) -> list[str]:
    return [mutation["kind"] for mutation in proposals(loop)[0].mutations]


def kept(loop: StepLoop) -> list[bool]:
    return [verdict.accepted for verdict in loop.verdicts()]


def strictness(loop: StepLoop) -> float:
    return round(loop.engine.history.strictness["interval"], 9)


def is_scored(loop: StepLoop) -> bool:
    return proposals(loop)[0].num_scored > 0


GREATER, LITTLE = (round(math.exp(0.5 * target), 9) for target in (0.5, 0.2))  # strictness after a roll-back
NEVER = (("min_gain", 0.99),)
BOTH = (("kinds", ("Widen", "InsertLayer")),)
LATE = (("first_epoch", 9.0), ("score_fraction", 0.99), ("evidence_samples", 32))
FALLING = (1.0, 0.95, 0.9)
PLATEAU = (("triggers", ("plateau",)), ("plateau_epochs", 3))

CASES: dict[str, Case] = {
    "kinds": Case(kinds, {("Widen",): ["Widen"], ("InsertLayer",): ["InsertLayer"]}),
    "widen_ratio": Case(lambda loop: proposals(loop)[0].mutations[0]["to"], {1.5: 6, 2.0: 8}),
    "edits_per_event": Case(lambda loop: len(kinds(loop)), {1: 1, 2: 2}, BOTH),
    "triggers": Case(positions, {("interval",): [1.0], ("schedule",): [1.25]}, (("schedule_epochs", (1.25,)),)),
    "first_epoch": Case(positions, {1.0: [1.0], 2.0: [2.0]}, (("interval_epochs", 0.5), ("max_events", 1)), 2),
    "last_epoch": Case(positions, {None: [1.0, 3.0], 2.0: [1.0]}, NEVER, 3),
    "interval_epochs": Case(positions, {1.0: [1.0, 3.0], 2.0: [2.0]}, NEVER, 3),
    "schedule_epochs": Case(positions, {(1.25,): [1.25], (1.0,): [1.0]}, (("triggers", ("schedule",)),)),
    "plateau_epochs": Case(positions, {3: [3.0], 4: [4.0]}, PLATEAU[:1], 4, losses=(1.0,) * 5),
    "plateau_min_slope": Case(positions, {0.0: [], 0.2: [3.0]}, PLATEAU, 3, losses=FALLING),
    "need_threshold": Case(lambda loop: len(proposals(loop)), {0.0: 1, 0.999: 0}, evidence=True),
    "cooldown_epochs": Case(positions, {0.0: [1.0, 3.0], 2.0: [1.0]}, NEVER, 3),
    "adapt_rate": Case(strictness, {0.0: 1.0, 0.5: GREATER}, NEVER),
    "target_success": Case(strictness, {0.5: GREATER, 0.2: LITTLE}, (*NEVER, ("adapt_rate", 0.5))),
    "policy": Case(
        kinds, {"uniform": ["Widen"], "scheduled": ["InsertLayer"]}, (*BOTH, ("sequence", ("InsertLayer",)))
    ),
    "sequence": Case(
        kinds, {("Widen",): ["Widen"], ("InsertLayer",): ["InsertLayer"]}, (*BOTH, ("policy", "scheduled"))
    ),
    "experience": Case(kinds, {"Widen": ["Widen"], "InsertLayer": ["InsertLayer"]}, (*BOTH, ("policy", "thompson"))),
    "score": Case(first("score"), {"residual": "residual", "tiny": "tiny"}, LATE, 9.25, evidence=True),
    "score_fraction": Case(is_scored, {0.0: False, 0.99: True}, LATE, 9.25, evidence=True),
    "score_bytes": Case(is_scored, {100: False, 1 << 24: True}, LATE, 9.25, evidence=True),
    "evidence_samples": Case(first("num_samples"), {16: 16, 32: 32}, LATE, 9.25, evidence=True),
    "trial_epochs": Case(first("trial_steps"), {0.5: 2, 1.0: 4}),
    "min_trial_steps": Case(
        lambda loop: len(proposals(loop)), {1: 1, 8: 0}, (("overhead_fraction", 0.9), ("trial_epochs", 2.0)), 3
    ),
    "min_gain": Case(kept, {0.0: [True], 0.99: [False]}),
    "cost_weight": Case(kept, {0.0: [True], 3.0: [False]}),
    "risk_aversion": Case(kept, {-3.0: [True], 3.0: [False]}),
    "ban_epochs": Case(positions, {0.0: [1.0, 3.0], 9.0: [1.0]}, NEVER, 3),
    "overhead_fraction": Case(positions, {None: [1.0], 0.0: []}),
    "max_events": Case(positions, {8: [1.0], 0: []}),
    "max_parameter_ratio": Case(positions, {8.0: [1.0], 1.0: []}),
    "max_flop_ratio": Case(positions, {8.0: [1.0], 1.0: []}),
    "max_bytes": Case(positions, {None: [1.0], 1: []}),
    "max_seconds": Case(positions, {None: [1.0], 1e-6: []}),
}


@pytest.fixture(autouse=True)
def fixture_global_generator_is_put_back() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


def test_every_field_has_a_case() -> None:
    assert CASES.keys() == {field.name for field in fields(MorphogenesisConfig)}
    assert all(len(set(map(repr, case.expected.values()))) > 1 for case in CASES.values())


@cache
def run(settings: tuple[tuple[str, Any], ...], length: float, evidence: bool, losses: tuple[float, ...]) -> StepLoop:
    loop = StepLoop(evidence=evidence, **(BASE | dict(settings)))
    told = iter(losses)
    if losses:
        after_epoch = loop.engine.after_epoch
        loop.engine.after_epoch = lambda _: after_epoch(next(told))  # type: ignore[method-assign]
    return loop.until(int(length), round(length % 1 * 4))


@pytest.mark.parametrize("name", CASES)
def test_a_field_has_its_effect(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    found = {}
    for value in case.expected:
        given = value
        if name == "experience":  # a file that says which kind is worth something
            path = tmp_path / f"{value}.json"
            path.write_text(json.dumps({value: asdict(replace(Belief(), mean=0.9, strength=99.0))}), encoding="utf-8")
            given = str(path)
        settings = tuple((dict(case.besides) | {name: given}).items())
        loop = run(tuple(sorted(settings)), case.length, case.evidence, case.losses)
        found[value] = case.outcome(loop)
    assert found == case.expected
