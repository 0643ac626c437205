"""The ledger books what really ran, and what decides stays within its share of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from morphogenesis.stepwise import StepLoop
from neuroexapt.graph import FlopCount


@pytest.fixture(autouse=True)
def fixture_global_generator_is_put_back() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


class Counted(StepLoop):
    """Counts what the engine really runs, and what the steps do; inputs take gradients, as hidden layers' do."""

    def __init__(self, **settings: Any) -> None:
        self.engine_flops, self.step_flops = 0, 0
        with FlopCount(fakes=False) as count:
            super().__init__(**settings)
        self.engine_flops += count.flops
        for name in ("after_step", "after_epoch"):
            setattr(self.engine, name, self._counted(getattr(self.engine, name)))

    def _counted(self, method: Callable[..., None]) -> Callable[..., None]:
        def counted(*arguments: Any) -> None:
            with FlopCount(fakes=False) as count:
                method(*arguments)
            self.engine_flops += count.flops

        return counted

    def _train(self, inputs: Tensor, targets: Tensor) -> float:
        with FlopCount(fakes=False) as count:
            loss = super()._train(inputs.requires_grad_(), targets)
        self.step_flops += count.flops
        return loss


@pytest.mark.parametrize(
    "settings",
    [
        {"edits_per_event": 2},
        {"kinds": ("PruneUnits",)},
        {"trial_epochs": 0.0, "kinds": ("InsertLayer",)},
        {"policy": "greedy", "evidence": True, "first_epoch": 3.0, "score_fraction": 0.99},
        {"need_threshold": 0.5, "evidence": True, "evidence_samples": 16},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_every_flop_that_ran_is_in_the_ledger(settings: dict[str, Any]) -> None:
    loop = Counted(**({"trial_epochs": 0.5} | settings)).until(4)
    assert loop.verdicts()
    ledger = loop.engine.ledger
    assert ledger.unseen_flops == pytest.approx(loop.engine_flops, rel=0.02)
    assert ledger.flops["training"] + ledger.flops["discarded"] == pytest.approx(loop.step_flops, rel=0.02)
    purposes = {"policy": "proposing", "need_threshold": "needs"}
    assert all(ledger.flops[purpose] for name, purpose in purposes.items() if name in settings)


@pytest.mark.parametrize("epochs", [None, 14], ids=["open end", "14 epochs"])
@pytest.mark.parametrize(
    "settings",
    [
        {"overhead_fraction": 0.4, "seed": 0},
        {"overhead_fraction": 0.3, "edits_per_event": 2, "seed": 1, "min_trial_steps": 2, "risk_aversion": -3.0},
        {"overhead_fraction": 0.2, "trial_epochs": 0.0, "seed": 2},
    ],
    ids=lambda settings: str(settings["overhead_fraction"]),
)
def test_what_decides_takes_at_most_its_share_of_the_training(settings: dict[str, Any], epochs: int | None) -> None:
    settings = {"trial_epochs": 1.0, "kinds": ("Widen", "InsertLayer")} | settings
    loop = StepLoop(epochs=epochs, **settings).until(14)
    ledger = loop.engine.ledger
    assert loop.verdicts()
    assert 0 < ledger.overhead_flops <= settings["overhead_fraction"] * ledger.flops["training"]
