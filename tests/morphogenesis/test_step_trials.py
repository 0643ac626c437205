"""Trials counted in steps, in somebody's own loop: what is thrown away is gone to the bit, and both arms are alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.state import raw
from morphogenesis.stepwise import STEPS, StepLoop
from neuroexapt.morphogenesis.averaging import WeightAverage

NEVER_KEPT = {"min_gain": 0.99}


@pytest.fixture(autouse=True)
def fixture_global_generator_is_put_back() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


def arms_of(loop: StepLoop) -> dict[str, list[list[tuple[Any, ...]]]]:
    """Steps of each arm without its name, event by event."""
    found: dict[str, list[list[tuple[Any, ...]]]] = {"control": [], "trial": []}
    before = "main"
    for arm, *step in loop.trained:
        if arm != "main":
            if arm != before:
                found[arm].append([])
            found[arm][-1].append(tuple(step))
        before = arm
    return found


WHEN: list[dict[str, Any]] = [
    {"trial_epochs": 0.5},  # within an epoch
    {"trial_epochs": 1.75},  # over the end of one, and the next event begins within one
    {"trial_epochs": 0.75, "triggers": ("schedule",), "schedule_epochs": (1.5, 3.25)},
    {"trial_epochs": 1.0, "edits_per_event": 2, "kinds": ("Widen", "InsertLayer")},
    {"trial_epochs": 0.75, "kinds": ("PruneUnits",)},
]


@pytest.mark.parametrize("settings", WHEN, ids=lambda s: f"{s['trial_epochs']}{''.join(s.get('kinds', ()))}")
def test_a_rolled_back_trial_leaves_a_run_as_never_tried(settings: dict[str, Any]) -> None:
    tried = StepLoop(**(NEVER_KEPT | settings)).until(4)
    never = StepLoop(max_events=0).until(tried.at.epoch, tried.at.step)
    assert len(tried.verdicts()) >= 2
    assert not any(verdict.accepted for verdict in tried.verdicts())
    assert max(len(verdict.mutations) for verdict in tried.verdicts()) == settings.get("edits_per_event", 1)
    assert tried.state() == never.state()
    histories = [loop.engine.history for loop in (tried, never)]
    assert histories[0].losses == histories[1].losses
    here = tried.at.epoch * STEPS + tried.at.step, tried.at.epoch
    assert [(history.num_steps, history.epoch) for history in histories] == [here] * 2


@pytest.mark.parametrize("settings", WHEN[:3], ids=lambda s: f"{s['trial_epochs']}")
def test_control_and_trial_see_the_same_batches(settings: dict[str, Any]) -> None:
    loop = StepLoop(**settings).until(4)
    arms = arms_of(loop)
    assert len(arms["control"]) >= 2
    assert arms["control"] == arms["trial"]
    assert {len(steps) for steps in arms["control"]} == {STEPS * settings["trial_epochs"]}


def test_a_kept_trial_stays_with_its_own_state_and_position() -> None:
    loop = StepLoop(triggers=("schedule",), schedule_epochs=(1.5,), trial_epochs=1.0, risk_aversion=-3.0, max_events=1)
    loop.until(2, 3)
    (verdict,) = loop.verdicts()
    assert verdict.accepted
    assert len(loop.engine.surgeon.lineage) == 1
    assert loop.at.state_dict() == {"epoch": 2, "step": 3}
    counted = [step for arm, *step in loop.trained if arm != "control"]
    assert [(epoch, step) for epoch, step, _ in counted] == [divmod(i, STEPS) for i in range(2 * STEPS + 3)]


class Failing:
    """Validation losses that are cut short at a chosen call."""

    def __init__(self, when: int) -> None:
        self.loop: StepLoop
        self.calls, self.when = 0, when

    def __call__(self) -> Tensor:
        self.calls += 1
        if self.calls == self.when:
            raise RuntimeError("the validation data are gone")
        return self.loop.losses()


@pytest.mark.parametrize("when", [1, 2], ids=["control", "trial"])
def test_the_model_has_its_own_values_again_where_validate_raises(when: int) -> None:
    validate = Failing(when)
    loop = StepLoop(validate=validate)
    validate.loop = loop
    seen: dict[str, Any] = {}
    train = loop._train

    def remembers(inputs: Tensor, targets: Tensor) -> float:
        loss = train(inputs, targets)
        seen.update({name: raw(tensor) for name, tensor in loop.model.state_dict().items()})
        return loss

    loop._train = remembers  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="validation data are gone"):
        loop.until(4)
    assert {name: raw(tensor) for name, tensor in loop.model.state_dict().items()} == seen


def test_an_average_is_of_the_weights_it_was_given_and_leaves_no_trace() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average, seen = WeightAverage(), []
    for _ in range(3):
        with torch.no_grad():
            for tensor in (*model.parameters(), model[1].running_mean):
                tensor.normal_()
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        average.add(model)
    with average.swapped_in(model):
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                torch.testing.assert_close(tensor, torch.stack([values[name] for values in seen]).mean(0))
    assert {n: raw(t) for n, t in model.state_dict().items()} == {n: raw(t) for n, t in seen[-1].items()}


@pytest.mark.parametrize(("kind", "is_exact"), [("Widen", True), ("PruneUnits", False)])
def test_edits_that_are_applied_untried_are_the_exact_ones(kind: str, is_exact: bool) -> None:
    loop = StepLoop(trial_epochs=0.0, kinds=(kind,), widen_ratio=2.0).until(3)
    verdicts = loop.verdicts()
    assert len(verdicts) >= 2
    assert {verdict.accepted for verdict in verdicts} == {is_exact}
    assert (len(loop.engine.surgeon.lineage) > 0) == is_exact
    assert {arm for arm, *_ in loop.trained} == {"main"}
    assert loop.engine.ledger.flops["discarded"] == 0
    if not is_exact:
        assert loop.state() == StepLoop(max_events=0).until(3).state()
