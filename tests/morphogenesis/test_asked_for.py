"""An edit of the caller's choice goes through control, trial and verdict like any other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD

from contracts.state import raw
from neuroexapt.config import MorphogenesisConfig
from neuroexapt.errors import SurgeryError, TrainingError
from neuroexapt.events import FanOut, ProposalMade, VerdictReached
from neuroexapt.morphogenesis import Morphogenesis
from neuroexapt.surgery import AddPooling, Widen
from train.tiny import Record

INPUTS = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(8) % 2
HALVED = AddPooling(site="1", variant="downsample")


def engine(sink: Record | None = None) -> Morphogenesis:
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    settings = MorphogenesisConfig(first_epoch=1000.0, trial_epochs=1.0)
    return Morphogenesis(model, SGD(model.parameters(), lr=0.1, momentum=0.9), INPUTS, settings, sink=sink or FanOut())


def train(of: Morphogenesis) -> None:
    optimizer = of.surgeon.optimizers[0]
    optimizer.zero_grad()
    loss = F.cross_entropy(of.surgeon.model(INPUTS), TARGETS)
    loss.backward()
    optimizer.step()
    of.after_step(loss)


def numbers(of: Morphogenesis) -> list[tuple[tuple[int, ...], bytes]]:
    model, optimizer = of.surgeon.model, of.surgeon.optimizers[0]
    return [raw(t) for p in model.parameters() for t in (p, optimizer.state[p]["momentum_buffer"])]


def size_of_map(of: Morphogenesis) -> int:
    return int(of.surgeon.model[:4](INPUTS).shape[-1])  # type: ignore[index]


@pytest.mark.parametrize(("trial_loss", "is_kept"), [(0.1, True), (0.9, False)])
def test_an_edit_that_declares_its_change_is_tried_and_judged(trial_loss: float, is_kept: bool) -> None:
    told = Record()
    running, left_alone = engine(told), engine()
    running.propose(HALVED)
    for loss in (0.5, trial_loss):
        assert size_of_map(running) == (8 if running.arm == "control" else 4)
        train(running)
        running.conclude(loss)
    train(left_alone)
    assert size_of_map(running) == (4 if is_kept else 8)
    assert running.arm == "main"
    if not is_kept:
        assert numbers(running) == numbers(left_alone)
    proposal, verdict = told.events[0], told.events[-1]
    assert isinstance(proposal, ProposalMade)
    assert proposal.trigger == "asked for"
    assert proposal.num_candidates == 1
    assert isinstance(verdict, VerdictReached)
    assert verdict.accepted is is_kept


def test_one_event_at_a_time_and_nothing_that_cannot_be_done() -> None:
    running = engine()
    with pytest.raises(SurgeryError, match="needed a path from"):
        running.propose(AddPooling(site="nowhere", variant="downsample"))
    assert running.arm == "main"
    running.propose(Widen(axis="0", to=6))
    with pytest.raises(TrainingError, match="`arm` is 'control'"):
        running.propose(HALVED)
