"""The engine in somebody's own loop: a plain loop, a scheduler, any optimizer."""

from __future__ import annotations

import gc
import json
import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from contracts.state import raw
from neuroexapt.config import MorphogenesisConfig
from neuroexapt.errors import CheckpointError, ConfigError, SurgeryError, TrainingError
from neuroexapt.events import MutationApplied, ProposalMade, VerdictReached
from neuroexapt.morphogenesis import Morphogenesis, Snapshot
from neuroexapt.surgery import Patch
from train.tiny import Record

INPUTS = torch.randn(24, 5, generator=torch.Generator().manual_seed(0))
TARGETS = (INPUTS[:, 0] * INPUTS[:, 1] > 0).long()


SETTINGS: dict[str, Any] = {
    "interval_epochs": 2.0,
    "first_epoch": 0.0,
    "min_gain": 0.0,
    "widen_ratio": 1.5,
    "max_events": 6,
    "edits_per_event": 1,
    "triggers": ("interval",),
    "cooldown_epochs": 0.0,
    "adapt_rate": 0.0,
    "trial_epochs": 1.0,
    "cost_weight": 0.0,
    "overhead_fraction": None,
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.drop(torch.relu(self.norm(self.first(x)))))


def train_step(model: nn.Module, optimizer: Optimizer, inputs: Tensor, targets: Tensor) -> float:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(inputs), targets)
    loss.backward()
    optimizer.step()
    return loss.item()


def validation_loss(model: nn.Module) -> float:
    model.eval()
    with torch.no_grad():
        loss = F.cross_entropy(model(INPUTS), TARGETS).item()
    model.train()
    return loss


class Loop:
    """A plain loop, as a user would write it."""

    def __init__(self, sink: Record | None = None, lr: float = 0.05, **settings: Any) -> None:
        torch.manual_seed(1)
        self.sink = sink or Record()
        self.model = Net().train()
        self.optimizer = SGD(self.model.parameters(), lr=lr, momentum=0.9)
        self.scheduler = LambdaLR(self.optimizer, lambda epoch: 0.97**epoch)
        config = MorphogenesisConfig(**(SETTINGS | settings))
        self.engine = Morphogenesis(
            self.model, self.optimizer, INPUTS[:8], config, stateful=[self.scheduler], sink=self.sink
        )

    def epoch(self, loss: float | None = None) -> None:
        for start in range(0, 24, 8):
            batch = slice(start, start + 8)
            self.engine.after_step(train_step(self.model, self.optimizer, INPUTS[batch], TARGETS[batch]))
        self.scheduler.step()
        self.engine.after_epoch(validation_loss(self.model) if loss is None else loss)

    def state(self) -> dict[str, Any]:
        named = {id(p): n for n, p in self.model.named_parameters()}
        return {
            "tensors": {k: raw(v) for k, v in self.model.state_dict().items()},
            "gradients": {n: None if p.grad is None else raw(p.grad) for n, p in self.model.named_parameters()},
            "moments": {named[id(p)]: raw(s["momentum_buffer"]) for p, s in self.optimizer.state.items()},
            "members": [[named[id(p)] for p in g["params"]] for g in self.optimizer.param_groups],
            "rate": self.optimizer.param_groups[0]["lr"],
            "scheduler": self.scheduler.state_dict(),
            "generator": raw(torch.get_rng_state()),
        }


@pytest.fixture(autouse=True)
def fixture_global_generator_is_put_back() -> Any:
    with torch.random.fork_rng():
        yield


def test_a_plain_loop_grows_and_says_what_the_next_epoch_is_for() -> None:
    loop, arms = Loop(), []
    for _ in range(9):
        arms.append(loop.engine.arm)
        loop.epoch()
    assert arms == ["main", "main", "control", "trial", "main", "main", "control", "trial", "main"]
    verdicts = [event for event in loop.sink.events if isinstance(event, VerdictReached)]
    assert len(verdicts) == 2
    assert sum(event.accepted for event in verdicts) == len(loop.engine.surgeon.lineage)


@pytest.mark.parametrize("kind", ["Widen", "InsertLayer"])
@pytest.mark.parametrize("trial_epochs", [1, 2])
def test_a_rolled_back_trial_leaves_weights_gradients_moments_rates_and_generator_as_never_tried(
    trial_epochs: int, kind: str
) -> None:
    control, tried = (
        Loop(max_events=number, kinds=(kind,), min_gain=0.99, trial_epochs=trial_epochs) for number in (0, 5)
    )
    torch.manual_seed(5)
    for _ in range(2 + trial_epochs):
        control.epoch()
    torch.manual_seed(5)
    for _ in range(2 + 2 * trial_epochs):
        tried.epoch()
    assert [event.accepted for event in tried.sink.events if isinstance(event, VerdictReached)] == [False]
    assert tried.state() == control.state()
    assert tried.engine.history.losses == control.engine.history.losses
    assert tried.engine.history.epoch == 2 + trial_epochs


def test_the_events_say_what_was_proposed_done_and_measured() -> None:
    loop = Loop(policy="uniform", kinds=("Widen",))
    for loss in (0.9, 0.8, 0.7, 0.5):
        loop.epoch(loss)
    proposal, applied, verdict = loop.sink.events
    assert isinstance(proposal, ProposalMade)
    assert isinstance(applied, MutationApplied)
    assert isinstance(verdict, VerdictReached)
    assert (proposal.epoch, applied.epoch, verdict.epoch) == (2, 2, 3)
    assert (proposal.trigger, proposal.policy, proposal.num_candidates) == ("every 2 epochs", "uniform", 1)
    made = loop.engine.surgeon.lineage.steps[0].mutation.to_json()
    assert proposal.mutations == [applied.mutation] == verdict.mutations == [made]
    assert proposal.description == proposal.uniform_choice == verdict.description
    assert (proposal.num_samples, proposal.evidence_choice, proposal.runners_up) == (0, "", [])
    assert proposal.added_flops == applied.flop_delta > 0
    assert applied.parameter_delta > 0
    assert applied.output_change <= 1e-5
    assert (verdict.control_loss, verdict.trial_loss, verdict.accepted) == (0.7, 0.5, True)
    assert verdict.measured_gain == pytest.approx(0.2)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_trial_that_is_not_finite_goes(loss: float) -> None:
    loop = Loop()
    for value in (0.9, 0.8, 0.7, loss):
        loop.epoch(value)
    verdict = loop.sink.events[-1]
    assert isinstance(verdict, VerdictReached)
    assert not verdict.accepted
    assert "not finite" in verdict.reason


def test_a_step_that_is_not_finite_condemns_the_trial_but_only_its_own() -> None:
    loop = Loop()
    loop.epoch(0.9)
    loop.engine.after_step(float("nan"))  # on the main line
    for value in (0.8, 0.7, 0.1):
        loop.epoch(value)
    assert loop.sink.events[-1].accepted  # type: ignore[attr-defined]
    loop = Loop()
    for value in (0.9, 0.8, 0.7):
        loop.epoch(value)
    loop.engine.after_step(torch.tensor(float("nan")))
    loop.epoch(0.1)
    assert not loop.sink.events[-1].accepted  # type: ignore[attr-defined]


def test_a_trial_can_be_given_up_and_nothing_else_can() -> None:
    control, loop = Loop(max_events=0), Loop()
    torch.manual_seed(5)
    for _ in range(3):
        control.epoch()
    torch.manual_seed(5)
    for _ in range(2):
        loop.epoch()
    with pytest.raises(TrainingError, match=r"`arm` is 'control': only a trial can be abandoned"):
        loop.engine.abandon_trial("why")
    loop.epoch()
    assert loop.engine.arm == "trial"
    loop.engine.after_step(train_step(loop.model, loop.optimizer, INPUTS[:8], TARGETS[:8]))
    loop.engine.abandon_trial("no room")
    assert loop.engine.arm == "main"
    assert loop.state() == control.state()
    verdict = loop.sink.events[-1]
    assert isinstance(verdict, VerdictReached)
    assert verdict.reason == "the trial was given up: no room"
    assert loop.engine.history.calibration == {}


def test_an_edit_that_is_refused_when_its_trial_begins_leaves_the_control(monkeypatch: pytest.MonkeyPatch) -> None:
    control, loop = Loop(max_events=0), Loop()
    torch.manual_seed(5)
    for _ in range(3):
        control.epoch()
    torch.manual_seed(5)
    for _ in range(2):
        loop.epoch()

    def refuses(*_: Any) -> Any:
        raise SurgeryError("first: it has changed its mind")

    monkeypatch.setattr(loop.engine.surgeon, "apply", refuses)
    loop.epoch()
    assert loop.state() == control.state()
    assert len(loop.engine.history.bans.places) == loop.sink.events[0].num_candidates == 2  # type: ignore[attr-defined]
    assert loop.engine.history.num_rolled_back == 1
    assert "changed its mind" in loop.sink.events[-1].reason  # type: ignore[attr-defined]


def test_the_next_in_rank_is_tried_where_the_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop()
    for _ in range(2):
        loop.epoch(0.9)
    apply, asked = loop.engine.surgeon.apply, []

    def refuses_the_first(mutation: Any) -> Patch:
        asked.append(mutation)
        if len(asked) == 1:
            raise SurgeryError("first: no")
        return apply(mutation)

    monkeypatch.setattr(loop.engine.surgeon, "apply", refuses_the_first)
    loop.epoch(0.9)
    assert loop.engine.arm == "trial"
    loop.epoch(0.1)
    verdict = loop.sink.events[-1]
    assert isinstance(verdict, VerdictReached)
    assert verdict.mutations == [asked[1].to_json()] != [asked[0].to_json()]
    assert loop.engine.history.bans.places.keys() == {f"{type(asked[0]).__name__}@{asked[0].place}"}
    assert [step.mutation for step in loop.engine.surgeon.lineage.steps] == [asked[1]]


def test_the_state_goes_to_json_and_back_and_the_run_goes_on_alike() -> None:
    first = Loop()
    for _ in range(5):
        first.epoch()
    assert first.engine.arm == "main"
    state = json.loads(json.dumps(first.engine.state_dict()))
    second = Loop()
    second.engine.load_state_dict(state)
    second.model.load_state_dict(first.model.state_dict())
    buffers = {n: first.optimizer.state[p]["momentum_buffer"] for n, p in first.model.named_parameters()}
    for name, parameter in second.model.named_parameters():
        second.optimizer.state[parameter]["momentum_buffer"] = buffers[name].clone()
        parameter.grad = dict(first.model.named_parameters())[name].grad.clone()  # type: ignore[union-attr]
    second.scheduler.load_state_dict(first.scheduler.state_dict())
    second.optimizer.param_groups[0]["lr"] = first.optimizer.param_groups[0]["lr"]
    second.sink.events[:] = first.sink.events
    for loop in (first, second):
        torch.manual_seed(8)
        for _ in range(7):
            loop.epoch()
    assert second.state() == first.state()
    states = [loop.engine.state_dict() for loop in (first, second)]
    for state in states:
        del state["ledger"]["seconds"]
    assert states[0] == states[1]


def test_a_state_is_neither_saved_in_a_trial_nor_loaded_into_a_grown_model() -> None:
    loop = Loop()
    for _ in range(2):
        loop.epoch(0.5)
    with pytest.raises(TrainingError, match=r"a trial is under way; save when `arm` is 'main'"):
        loop.engine.state_dict()
    loop.epoch(0.5)
    loop.epoch(0.1)
    state = loop.engine.state_dict()
    with pytest.raises(CheckpointError, match=r"changed already, needed its seed model"):
        loop.engine.load_state_dict(state)


def test_unknown_kinds_and_evidence_without_data_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"morphogenesis.kinds: found 'Melt', needed one of Widen, "):
        Loop(kinds=("Melt",))
    with pytest.raises(ConfigError, match=r"morphogenesis.score: found 'best', needed one of residual, "):
        Loop(score="best")
    with pytest.raises(ConfigError, match=r"greedy.* evidence of the training data, and there are none"):
        Loop(policy="greedy")
    Loop(policy="greedy", max_events=0)


def test_a_candidate_that_is_refused_is_a_warning_and_not_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(*_: Any) -> Any:
        raise SurgeryError("first: no")

    monkeypatch.setattr("neuroexapt.morphogenesis.proposer.assay", refuses)
    loop = Loop()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            loop.epoch(0.5)
    assert "candidate refused: first: no" in caplog.text
    assert loop.engine.arm == "main"
    assert loop.engine.history.last_event == 2  # and it is not tried again at once


def live_bytes() -> int:
    gc.collect()
    tensors = [
        item for item in gc.get_objects() if type(item) in (Tensor, nn.Parameter) and item.layout == torch.strided
    ]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.mark.parametrize("min_gain", [0.0, 0.99], ids=["accepted", "rolled back"])
def test_after_five_events_nothing_of_the_old_tensors_is_alive(min_gain: float) -> None:
    loop = Loop(
        min_gain=min_gain,
        max_events=20,
        interval_epochs=1.0,
        ban_epochs=0.0,
        max_parameter_ratio=1e6,
        max_flop_ratio=1e6,
    )
    loop.epoch(100.0)
    other = live_bytes() - owned_bytes(loop)
    for epoch in range(14):  # five times control, trial and an epoch between
        loop.epoch(100.0 * 0.9**epoch)
    assert loop.engine.arm == "main"
    alive = [item for item in gc.get_objects() if type(item) in (Patch, Snapshot)]
    assert alive == []
    assert live_bytes() - owned_bytes(loop) - other <= 64  # a few numbers, and no tensor of a layer
    assert (loop.engine.history.num_accepted, loop.engine.history.num_rolled_back) == ((0, 5) if min_gain else (5, 0))


def owned_bytes(loop: Loop) -> int:
    tensors = [*loop.model.state_dict().values(), *(p.grad for p in loop.model.parameters() if p.grad is not None)]
    moments = [s["momentum_buffer"] for s in loop.optimizer.state.values()]
    return sum(tensor.untyped_storage().nbytes() for tensor in [*tensors, *moments])
