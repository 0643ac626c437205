"""Optimizers and schedulers go on after edits, whatever their kind."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop, lr_scheduler

from contracts.networks import batch, build
from contracts.state import fingerprint
from neuroexapt.errors import SurgeryError
from neuroexapt.surgery import InsertLayer, Surgeon, Widen

KINDS: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda p, **k: SGD(p, lr=0.05, momentum=0.9, **k),
    "adam": lambda p, **k: Adam(p, lr=1e-2, amsgrad=True, **k),
    "adamw": lambda p, **k: AdamW(p, lr=1e-2, **k),
    "rmsprop": lambda p, **k: RMSprop(p, lr=1e-3, momentum=0.9, centered=True, **k),
    "adagrad": lambda p, **k: Adagrad(p, lr=1e-2, **k),
}
SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "one_cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.05, total_steps=20),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=10),
}


def step(model: nn.Module, optimizer: Optimizer, seed: int = 0) -> Tensor:
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), torch.arange(4) % 5)
    loss.backward()
    optimizer.step()
    return loss.detach()


def edit(surgeon: Surgeon) -> None:
    surgeon.apply(Widen(axis="features.0", to=9))
    surgeon.apply(InsertLayer(site="features.5"))


@pytest.mark.parametrize(("kind", "foreach"), list(itertools.product(KINDS, [False, True])))
def test_every_optimizer_goes_on_with_its_surviving_memory(kind: str, foreach: bool) -> None:
    model = build("conv_bn")
    optimizer = KINDS[kind](model.parameters(), foreach=foreach)
    step(model, optimizer)
    conv = model.get_submodule("features.0").weight
    old = {k: v.clone() for k, v in optimizer.state[conv].items() if isinstance(v, Tensor)}
    edit(Surgeon(model, batch(), optimizer))
    for key, value in optimizer.state[conv].items():
        if old[key].dim():
            assert torch.equal(value[:6], old[key])
            assert not value[6:].any()
        else:
            assert torch.equal(value, old[key])
    losses = [step(model, optimizer) for _ in range(6)]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    assert set(optimizer.state) == set(model.parameters())


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_goes_on_as_if_nothing_had_happened(name: str) -> None:
    rates = []
    for is_edited in (False, True):
        model = build("conv_bn")
        optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
        scheduler = SCHEDULERS[name](optimizer)
        seen = []
        for index in range(6):
            if is_edited and index == 3:
                edit(Surgeon(model, batch(), optimizer))
            step(model, optimizer)
            scheduler.step(*([1.0] if name == "plateau" else []))
            seen.append([group["lr"] for group in optimizer.param_groups])
        rates.append(seen)
    assert rates[0] == rates[1]


def test_state_of_another_shape_is_refused_and_nothing_changes() -> None:
    model = build("conv_bn")
    optimizer = torch.optim.Adafactor(model.parameters())
    step(model, optimizer)
    optimizer.zero_grad()
    before = fingerprint(model, optimizer)
    with pytest.raises(
        SurgeryError, match=r"Adafactor keeps 'row_var' of shape .* can be moved\. Use SGD, Adam, AdamW"
    ):
        Surgeon(model, batch(), optimizer).apply(Widen(axis="features.0", to=9))
    assert fingerprint(model, optimizer) == before


def test_an_optimizer_with_one_history_for_all_parameters_is_refused() -> None:
    model = build("conv_bn")
    with pytest.raises(SurgeryError, match="LBFGS keeps one history for all parameters"):
        Surgeon(model, batch(), LBFGS(model.parameters())).apply(Widen(axis="features.0", to=9))


def test_state_nested_in_a_container_is_refused() -> None:
    model = build("conv_bn")
    optimizer = SGD(model.parameters(), lr=0.1)
    optimizer.state[model.get_submodule("features.0").weight]["history"] = [torch.zeros(6, 3, 3, 3)]
    with pytest.raises(SurgeryError, match="SGD keeps 'history' of shape"):
        Surgeon(model, batch(), optimizer).apply(Widen(axis="features.0", to=9))


def test_an_optimizer_of_another_model_is_refused() -> None:
    model, other = build("conv_bn"), build("conv_bn")
    with pytest.raises(
        SurgeryError, match=r"SGD holds no parameter of ConvBatchNorm\. Give the optimizer of this model"
    ):
        Surgeon(model, batch(), SGD(other.parameters(), lr=0.1)).apply(InsertLayer(site="features.2"))
    assert type(model.get_submodule("features.2")) is nn.ReLU


def test_state_that_appears_after_the_edit_is_dropped_by_the_revert() -> None:
    model = build("conv_bn")
    optimizer = KINDS["adamw"](model.parameters())
    surgeon = Surgeon(model, batch(), optimizer)
    patch = surgeon.apply(Widen(axis="features.0", to=9))
    step(model, optimizer)
    optimizer.zero_grad()
    surgeon.revert(patch)
    step(model, optimizer)
    assert all(v.shape == p.shape for p, s in optimizer.state.items() for v in s.values() if v.dim())


def test_a_loaded_optimizer_state_does_not_keep_a_reverted_parameter() -> None:
    model = build("conv_bn")
    optimizer = KINDS["adamw"](model.parameters())
    surgeon = Surgeon(model, batch(), optimizer)
    patch = surgeon.apply(InsertLayer(site="features.2"))
    optimizer.load_state_dict(optimizer.state_dict())
    surgeon.revert(patch)
    assert [id(p) for g in optimizer.param_groups for p in g["params"]] == [id(p) for p in model.parameters()]
