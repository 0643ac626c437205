"""Weights that are computed from other tensors: edited exactly, or refused with the reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.optim import SGD

from contracts.state import fingerprint
from neuroexapt.errors import SurgeryError
from neuroexapt.surgery import Surgeon, Widen

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")

EXACT = 1e-10


def net(which: int, how: Callable[[nn.Module], object]) -> nn.Module:
    """Two layers, one of them with a computed weight."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)).double()
        how(model[which])
    return model


def probe() -> Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).double()


def pruned(module: nn.Module) -> None:
    prune.l1_unstructured(module, "weight", 0.3)


CASES: dict[str, tuple[int, Callable[[nn.Module], object], str]] = {
    "weight norm makes the units": (0, parametrizations.weight_norm, "0.parametrizations.weight.original0[0]"),
    "old weight norm makes the units": (0, weight_norm, "0.weight_g[0]"),
    "spectral norm reads the units": (2, parametrizations.spectral_norm, "0"),
    "old spectral norm reads the units": (2, spectral_norm, "0"),
    "pruned rows": (0, pruned, "0.weight_orig[0]"),
    "pruned columns": (2, pruned, "0"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_computed_weight_grows_exactly_and_trains_on_and_reverts(case: str) -> None:
    which, how, axis = CASES[case]
    model = net(which, how)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(probe()).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        before = model(probe() * 2)
    surgeon = Surgeon(model, probe(), optimizer)
    keys = list(model.state_dict())
    patch = surgeon.apply(Widen(axis=axis, to=11))
    assert patch.verified_in_train_mode
    assert list(model.state_dict()) == keys
    assert model[2].weight.shape == (5, 11)
    assert model[0].weight.shape == (11, 6)
    if which == 0 and how is parametrizations.weight_norm:
        assert model[0].out_features == 11
    with torch.no_grad():
        assert (model(probe() * 2) - before).abs().max() <= EXACT * before.abs().max()
    model.train()(probe()).square().sum().backward()
    new = patch.new_entries(model)
    assert all(p.grad is not None for p in model.parameters())
    assert any(bool(p.grad[new[name]].any()) for name, p in model.named_parameters() if new.get(name) is not None)
    optimizer.zero_grad()
    model(probe()).detach()
    surgeon.revert(patch)
    assert model[2].weight.shape == (5, 8)
    assert model(probe()).shape == (4, 5)


def test_new_entries_of_a_pruned_weight_are_not_pruned() -> None:
    for which, name in ((0, "0.weight_orig[0]"), (2, "0")):
        model = net(which, pruned)
        mask = model[which].weight_mask.clone()
        Surgeon(model, probe()).apply(Widen(axis=name, to=11))
        grown = model[which].weight_mask
        old, new = (grown[:8], grown[8:]) if which == 0 else (grown[:, :8], grown[:, 8:])
        assert torch.equal(old, mask)
        assert bool((new == 1).all())


@pytest.mark.parametrize(
    ("which", "how", "axis", "why"),
    [
        (0, parametrizations.orthogonal, "0.bias[0]", "an orthogonal weight would not be orthogonal"),
        (2, parametrizations.orthogonal, "0", "an orthogonal weight would not be orthogonal"),
        (0, parametrizations.spectral_norm, "0.parametrizations.weight.original[0]", "reads across the axis"),
    ],
)
def test_a_weight_that_cannot_grow_exactly_is_refused_before_anything_changes(
    which: int, how: Callable[[nn.Module], object], axis: str, why: str
) -> None:
    model = net(which, how)
    optimizer = SGD(model.parameters(), lr=0.1)
    before = fingerprint(model, optimizer)
    with pytest.raises(SurgeryError, match=why):
        Surgeon(model, probe(), optimizer).apply(Widen(axis=axis, to=11))
    assert fingerprint(model, optimizer) == before
