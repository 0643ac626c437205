"""Made-up runs: a seeded story of epochs and growth events, with every number known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from neuroexapt.events import (
    EpochFinished,
    Event,
    MutationApplied,
    ProposalMade,
    RunFinished,
    RunStarted,
    VerdictReached,
)

EPOCH_FLOPS = 40_000_000_000


class MadeUpRun:
    """Tells a run epoch by epoch; ``events`` is what a sink would have got."""

    def __init__(self, num_groups: int = 6, description: str | None = None) -> None:
        self.widths = {f"stages.{i // 2}.{i % 2}.conv1": 8 * 2 ** (i // 3) for i in range(num_groups)}
        self.description = description
        self.num_parameters, self.flops, self.num_layers = 4_810, 1_250_000, 8
        self.total_flops = 0
        self.events: list[Event] = [
            RunStarted(
                command="neuroexapt grow --out runs/digits --set seed=3",
                seed=3,
                device="cpu",
                model="resnet (width 8, 3 stages)",
                data="digits",
                num_train=1_222,
                num_validation=215,
                num_test=360,
                num_parameters=self.num_parameters,
                flops=self.flops,
                config={"seed": 3, "train": {"epochs": 30, "batch_size": 64}, "morphogenesis": {"policy": "evidence"}},
                versions={"python": "3.12.4", "torch": "2.10.0", "neuroexapt": "0.1.0"},
            )
        ]
        self.num_accepted = self.num_rolled_back = 0

    def epoch(self, number: int, arm: str = "main", gain: float = 0.0) -> EpochFinished:
        loss = 0.06 + 2.2 * math.exp(-number / 5.5) + 0.012 * math.sin(5 * number) - gain
        self.total_flops += EPOCH_FLOPS * self.flops // 1_250_000
        told = EpochFinished(
            epoch=number,
            arm=arm,
            train_loss=loss * 0.82,
            validation_loss=loss,
            validation_accuracy=1 - 0.36 * loss,
            num_parameters=self.num_parameters,
            flops=self.flops,
            total_flops=self.total_flops,
            seconds=2.5,
            learning_rate=3e-3,
            widths=dict(self.widths),
            num_layers=self.num_layers,
            memory_bytes=412 * 2**20,
        )
        self.events.append(told)
        return told

    def edit(self, after: int, gain: float, predicted: float = 0.02, num_epochs: int = 1) -> None:
        """Proposes, runs both arms for ``num_epochs`` and decides: kept where the gain is positive."""
        group = list(self.widths)[after % len(self.widths)]
        old, new = self.widths[group], self.widths[group] * 3 // 2
        what = self.description or f"widen {group} {old} -> {new} channels"
        mutation = {"kind": "Widen", "group": group, "units": new}
        self.events.append(
            ProposalMade(
                epoch=after,
                trigger="every 3 epochs",
                policy="evidence",
                mutations=[mutation],
                description=what,
                position=float(after),
                trial_steps=20 * num_epochs,
                strictness={"interval": 1.35},
                predicted_gain=predicted,
                evidence=3.1e-4,
                evidence_spread=4.0e-5,
                num_samples=512,
                added_flops=self.flops // 8,
                uniform_choice="widen stem 8 -> 12 channels",
                num_candidates=14,
                runners_up=[{"description": "insert a layer after stem", "evidence": 2e-4, "added_flops": 90_000}],
            )
        )
        numbers = range(after + 1, after + 1 + num_epochs)
        before = (self.num_parameters, self.flops, dict(self.widths))
        control = [self.epoch(number, "control") for number in numbers]
        self.num_parameters, self.flops, self.widths[group] = before[0] + 936, before[1] + before[1] // 8, new
        self.events.append(
            MutationApplied(
                epoch=after,
                mutation=mutation,
                description=what,
                output_change=1.2e-7,
                parameter_delta=936,
                flop_delta=self.flops - before[1],
                seconds=0.02,
            )
        )
        trial = [self.epoch(number, "trial", gain) for number in numbers]
        self.verdict(after + num_epochs, mutation, what, predicted, control[-1], trial[-1])
        if gain <= 0:
            self.num_parameters, self.flops, self.widths = before

    def step_counted(self, position: float, gain: float, *, num_edits: int = 1, steps: int = 12) -> None:
        """Tells an event whose arms are shorter than an epoch: no epoch is told for either."""
        mutations = [{"kind": "Widen", "axis": name} for name in list(self.widths)[:num_edits]]
        what = [f"widen {name}" for name in list(self.widths)[:num_edits]]
        self.events.append(
            ProposalMade(
                epoch=int(position),
                position=position,
                trigger="every 3 epochs",
                policy="thompson",
                mutations=mutations,
                description="; ".join(what),
                trial_steps=steps,
                strictness={"interval": 1.35},
                predicted_gain=0.0,
                evidence=0.0,
                evidence_spread=0.0,
                num_samples=0,
                added_flops=1000 * num_edits,
                uniform_choice=what[0],
                num_candidates=14,
                runners_up=[],
            )
        )
        for mutation, description in zip(mutations, what, strict=True):
            self.events.append(
                MutationApplied(
                    epoch=int(position),
                    mutation=mutation,
                    description=description,
                    output_change=0.0,
                    parameter_delta=100,
                    flop_delta=1000,
                    seconds=0.01,
                )
            )
        self.total_flops += 3_000_000_000
        self.events.append(
            VerdictReached(
                epoch=int(position),
                position=position + 0.25,
                accepted=gain > 0,
                mutations=mutations,
                description="; ".join(what),
                predicted_gain=0.0,
                measured_gain=gain,
                relative_gain=gain / 0.5,
                low=gain / 0.5 - 0.01,
                high=gain / 0.5 + 0.01,
                needed=0.0,
                cost=0.02,
                control_loss=0.5,
                trial_loss=0.5 - gain,
                trial_steps=steps,
                discarded_flops=2_000_000_000,
                reason="a gain",
            )
        )

    def verdict(
        self,
        epoch: int,
        mutation: dict[str, object],
        what: str,
        predicted: float,
        control: EpochFinished,
        trial: EpochFinished,
    ) -> None:
        measured = control.validation_loss - trial.validation_loss
        accepted = measured > 0
        self.num_accepted += accepted
        self.num_rolled_back += not accepted
        self.events.append(
            VerdictReached(
                epoch=epoch,
                accepted=accepted,
                mutations=[mutation],
                description=what,
                predicted_gain=predicted,
                measured_gain=measured,
                relative_gain=measured / control.validation_loss,
                low=measured / control.validation_loss - 0.02,
                high=measured / control.validation_loss + 0.02,
                needed=0.005,
                cost=0.09,
                position=float(epoch),
                trial_steps=20,
                control_loss=control.validation_loss,
                trial_loss=trial.validation_loss,
                reason="gain over 0 needed",
            )
        )

    def finish(self, chosen_epoch: int, reason: str = "completed", **told: Any) -> None:
        started = self.events[0]
        assert isinstance(started, RunStarted)
        self.events.append(
            RunFinished(
                reason=reason,
                chosen_epoch=chosen_epoch,
                validation_loss=0.07,
                validation_accuracy=0.981,
                test_loss=0.08,
                test_accuracy=0.978,
                num_parameters=self.num_parameters,
                flops=self.flops,
                num_parameters_start=started.num_parameters,
                flops_start=started.flops,
                total_flops=self.total_flops,
                num_accepted=self.num_accepted,
                num_rolled_back=self.num_rolled_back,
                seconds=215.0,
                peak_memory_bytes=534 * 2**20,
                **told,
            )
        )


def grown_run(num_groups: int = 6, description: str | None = None, num_epochs: int = 30) -> MadeUpRun:
    """Returns a finished run with an edit after epochs 3, 6, 9, 13, 16, 19; the third is rolled back."""
    run = MadeUpRun(num_groups, description)
    gains = {3: 0.11, 6: 0.05, 9: -0.031, 13: 0.035, 16: 0.012, 19: 0.004}
    number = 1
    while number <= num_epochs:
        run.epoch(number)
        if number in gains and number + 1 <= num_epochs:
            run.edit(number, gains[number], predicted=0.021 + gains[number] / 3)
            number += 1
        number += 1
    run.finish(chosen_epoch=num_epochs - 1)
    return run


@pytest.fixture
def make_run() -> Callable[..., MadeUpRun]:
    """Returns ``MadeUpRun``: tell your own story."""
    return MadeUpRun


@pytest.fixture
def make_grown_run() -> Callable[..., MadeUpRun]:
    """Returns ``grown_run``: 30 epochs, five edits kept, one rolled back."""
    return grown_run


@pytest.fixture
def events() -> list[Event]:
    """The events of a short grown run."""
    return grown_run(num_epochs=12).events
