"""Axes that something reads across, or that several places share, grow exactly."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from torch import nn
from torch.optim import SGD

from contracts.state import fingerprint
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import trace
from neuroexapt.surgery import Lineage, Surgeon, Widen, replay
from surgery.coupled_networks import COUPLED, build_coupled, sequences

EXACT = 1e-10  # float64, relative: summation order is all that may differ


@cache
def widened(name: str) -> Widen:
    model = build_coupled(name)
    group = trace(model, sequences()).group(COUPLED[name][1])
    return Widen(axis=group.name, to=group.size * 2 if COUPLED[name][2] else group.size + 3)


@pytest.mark.parametrize("name", COUPLED)
def test_a_coupled_axis_grows_exactly_in_both_modes(name: str) -> None:
    model = build_coupled(name)
    unseen = 2 * sequences(7)
    with torch.no_grad():
        before = [model.train(training)(unseen) for training in (False, True)]
    patch = Surgeon(model, sequences()).apply(widened(name))
    with torch.no_grad():
        after = [model.train(training)(unseen) for training in (False, True)]
    for old, new in zip(before, after, strict=True):
        assert (new - old).abs().max() <= EXACT * old.abs().max()
    assert patch.parameter_delta > 0


@pytest.mark.parametrize("name", COUPLED)
def test_whether_an_axis_grows_by_a_factor_only_is_known_before(name: str) -> None:
    group = trace(build_coupled(name), sequences()).group(COUPLED[name][1])
    assert group.can_widen, group.reason
    assert group.grows_by_factor == COUPLED[name][2]


@pytest.mark.parametrize("name", [name for name, case in COUPLED.items() if case[2]])
def test_a_size_that_is_no_multiple_is_refused_before_anything_changes(name: str) -> None:
    model = build_coupled(name)
    optimizer = SGD(model.parameters(), lr=0.1)
    before = fingerprint(model, optimizer)
    group = trace(model, sequences()).group(COUPLED[name][1])
    with pytest.raises(SurgeryError, match=f"reads across the axis.*give a multiple of {group.size}"):
        Surgeon(model, sequences(), optimizer).apply(Widen(axis=group.name, to=group.size + 1))
    assert fingerprint(model, optimizer) == before


@pytest.mark.parametrize("name", COUPLED)
def test_new_entries_learn_and_copies_part(name: str) -> None:
    model = build_coupled(name).train()
    patch = Surgeon(model, sequences()).apply(widened(name))
    masks = patch.new_entries(model)
    seen = {path: torch.zeros_like(p, dtype=torch.bool) for path, p in model.named_parameters()}
    optimizer = SGD(model.parameters(), lr=0.1)
    for seed in range(2):
        optimizer.zero_grad()
        model(sequences(seed)).sin().square().sum().backward()
        optimizer.step()
        for path, parameter in model.named_parameters():
            seen[path] |= parameter.grad != 0 if parameter.grad is not None else False
    for path, mask in masks.items():
        assert mask is not None
        if mask.any():
            assert seen[path][mask].float().mean() > 0.5, path


@pytest.mark.parametrize("name", COUPLED)
def test_reverting_and_replaying_a_coupled_edit(name: str) -> None:
    model = build_coupled(name)
    optimizer = SGD(model.parameters(), lr=0.1)
    before = fingerprint(model, optimizer)
    surgeon = Surgeon(model, sequences(), optimizer)
    patch = surgeon.apply(widened(name))
    lineage, grown = Lineage.from_json(surgeon.lineage.to_json()), copy.deepcopy(model)
    surgeon.revert(patch)
    assert fingerprint(model, optimizer) == before
    replay(model, lineage, sequences())
    for (path, tensor), other in zip(model.state_dict().items(), grown.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), path


def test_copied_units_share_their_outgoing_weights_unevenly() -> None:
    model = build_coupled("residual stream through layer norms")
    old = model.head.weight.detach().clone()
    Surgeon(model, sequences()).apply(Widen(axis="embed", to=12))
    first, second = model.head.weight.detach().chunk(2, dim=1)
    torch.testing.assert_close(first + second, old)
    assert ((first / old) - 0.5).abs().min() > 1e-4


def test_only_the_keys_of_a_fused_projection_get_zeros() -> None:
    model = build_coupled("head width with a constant scale")
    Surgeon(model, sequences()).apply(Widen(axis="qkv.weight[0].2", to=6))
    queries, keys, values = model.qkv.weight.detach().unflatten(0, (3, 2, 6)).unbind(0)
    assert not keys[:, 4:].any()
    assert queries[:, 4:].all()
    assert values[:, 4:].all()


class LogSoftmax(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).log_softmax(-1))


def test_what_neither_silence_nor_copies_can_grow_is_refused_with_the_operator() -> None:
    with pytest.raises(SurgeryError, match=r"first: cannot widen.*_log_softmax in the model reads across the axis"):
        Surgeon(LogSoftmax().double(), sequences()).apply(Widen(axis="first", to=8))
