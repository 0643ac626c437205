"""Optimizers and schedulers go on after edits, whatever their kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import (
    ASGD,
    LBFGS,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Muon,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    Rprop,
    lr_scheduler,
)

from contracts.networks import batch, build
from contracts.state import fingerprint
from neuroexapt.errors import SurgeryError
from neuroexapt.surgery import InsertLayer, Surgeon, Widen


class Lion(Optimizer):
    """An optimizer that torch does not know, with state of the parameter's shape (Chen et al. 2023, algorithm 2)."""

    def __init__(self, parameters: Any, lr: float, foreach: bool = False) -> None:
        super().__init__(parameters, {"lr": lr, "betas": (0.9, 0.99)})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    mean = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                    p.sub_(torch.lerp(mean, p.grad, 1 - group["betas"][0]).sign_(), alpha=group["lr"])
                    mean.lerp_(p.grad, 1 - group["betas"][1])


KINDS: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda p, **k: SGD(p, lr=0.05, momentum=0.9, nesterov=True, **k),
    "adam": lambda p, **k: Adam(p, lr=1e-2, amsgrad=True, **k),
    "adamw": lambda p, **k: AdamW(p, lr=1e-2, **k),
    "rmsprop": lambda p, **k: RMSprop(p, lr=1e-3, momentum=0.9, centered=True, **k),
    "adagrad": lambda p, **k: Adagrad(p, lr=1e-2, initial_accumulator_value=0.1, **k),
    "adadelta": lambda p, **k: Adadelta(p, lr=1.0, **k),
    "nadam": lambda p, **k: NAdam(p, lr=1e-2, **k),
    "radam": lambda p, **k: RAdam(p, lr=1e-2, **k),
    "adamax": lambda p, **k: Adamax(p, lr=1e-2, **k),
    "asgd": lambda p, **k: ASGD(p, lr=0.05, t0=0, **k),
    "rprop": lambda p, **k: Rprop(p, lr=1e-3, **k),
    "lion": lambda p, **k: Lion(p, lr=1e-3, **k),
}
FUSED = ("sgd", "adam", "adamw", "adagrad")
FIRST = {"adagrad": {"sum": 0.1}, "rprop": {"step_size": 1e-3}}  # of new entries, where that is not zero
SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "one_cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.05, total_steps=20),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=10),
    "sequence": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, total_iters=2), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[4]
    ),
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


@pytest.mark.parametrize(
    ("kind", "how"),
    [(k, how) for k in KINDS for how in ({"foreach": False}, {"foreach": True})]
    + [(k, {"fused": True}) for k in FUSED],
    ids=lambda value: "_".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value,
)
def test_every_optimizer_goes_on_with_its_surviving_memory(kind: str, how: dict[str, bool]) -> None:
    model = build("conv_bn")
    optimizer = KINDS[kind](model.parameters(), **how)
    step(model, optimizer)
    conv = model.get_submodule("features.0").weight
    old = {k: v.clone() for k, v in optimizer.state[conv].items() if isinstance(v, Tensor)}
    edit(Surgeon(model, batch(), optimizer))
    for key, value in optimizer.state[conv].items():
        if isinstance(value, Tensor) and old[key].dim():
            first = conv[6:] if key == "ax" else torch.full_like(value[6:], FIRST.get(kind, {}).get(key, 0.0))
            assert torch.equal(value[:6], old[key])
            assert torch.equal(value[6:], first)
        elif isinstance(value, Tensor):
            assert torch.equal(value, old[key])
    losses = [step(model, optimizer) for _ in range(6)]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    assert set(optimizer.state) == set(model.parameters())


def test_parameters_of_two_optimizers_move_in_both_and_new_ones_join_the_one_that_takes_their_kind() -> None:
    class Matrices(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.act, self.down = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(self.act(self.up(x)))

    model, x = Matrices(), torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    muon = Muon([p for p in model.parameters() if p.dim() == 2], lr=0.01)
    others = AdamW([p for p in model.parameters() if p.dim() != 2], lr=0.01)
    momentum = []
    surgeon = Surgeon(model, x, [muon, others])
    for mutation in (Widen(axis="up", to=9), InsertLayer(site="act", kernel_size=1), None):
        for optimizer in (muon, others):
            optimizer.zero_grad()
        model(x).square().sum().backward()
        for optimizer in (muon, others):
            optimizer.step()
        momentum.append(muon.state[model.up.weight]["momentum_buffer"].clone())
        if mutation is not None:
            surgeon.apply(mutation)
    assert torch.equal(muon.state[model.up.weight]["momentum_buffer"], momentum[-1])
    for optimizer, is_mine in ((muon, lambda p: p.dim() == 2), (others, lambda p: p.dim() != 2)):
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in model.parameters() if is_mine(p)}
        assert all(v.shape == p.shape for p, s in optimizer.state.items() for v in s.values() if v.dim())


def test_a_parameter_in_two_optimizers_has_its_state_moved_in_both() -> None:
    model = build("conv_bn")
    both = [KINDS["sgd"](model.parameters()), KINDS["adam"](model.parameters())]
    for optimizer in both:
        step(model, optimizer)
    edit(Surgeon(model, batch(), both))
    for optimizer in both:
        step(model, optimizer)
        assert all(v.shape == p.shape for p, s in optimizer.state.items() for v in s.values() if v.dim())


def test_optimizers_that_know_names_know_those_of_new_parameters() -> None:
    model = build("conv_bn")
    optimizer = SGD(model.named_parameters(), lr=0.1)
    surgeon = Surgeon(model, batch(), optimizer)
    before = list(optimizer.param_groups[0]["param_names"])
    patch = surgeon.apply(InsertLayer(site="features.2"))
    group = optimizer.param_groups[0]
    names = {id(p): name for name, p in model.named_parameters()}
    assert group["param_names"] == [names[id(p)] for p in group["params"]]
    surgeon.revert(patch)
    assert group["param_names"] == before


@pytest.mark.parametrize("is_subclass", [False, True])
def test_eight_bit_state_is_refused_and_nothing_changes(is_subclass: bool) -> None:
    class Quantized(Tensor):
        pass

    model = build("conv_bn")
    optimizer = SGD(model.parameters(), lr=0.1)
    weight = model.get_submodule("features.0").weight
    state = optimizer.state[weight]
    state["step"] = 3
    if is_subclass:
        state["state1"] = torch.zeros(6, 3, 3, 3).as_subclass(Quantized)
    else:  # as bitsandbytes keeps it: the shape of the parameter, but blocks of 256 numbers with one scale each
        state["state1"] = torch.zeros(6, 3, 3, 3, dtype=torch.uint8)
        state |= {"qmap1": torch.zeros(256), "absmax1": torch.zeros(1)}
    before = fingerprint(model, optimizer)
    kind = "Quantized" if is_subclass else r"torch\.uint8"
    with pytest.raises(SurgeryError, match=rf"SGD keeps 'state1' as {kind}: quantized .* Use the 32-bit form"):
        Surgeon(model, batch(), optimizer).apply(Widen(axis="features.0", to=9))
    assert fingerprint(model, optimizer) == before


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


def test_an_optimizer_that_the_model_has_left_is_refused() -> None:
    model, other = build("conv_bn"), build("conv_bn")
    surgeon = Surgeon(model, batch(), SGD(model.parameters(), lr=0.1))
    model.load_state_dict(other.state_dict(), assign=True)
    with pytest.raises(
        SurgeryError, match=r"SGD holds no parameter of ConvBatchNorm\. Give the optimizer of this model"
    ):
        surgeon.apply(InsertLayer(site="features.2"))
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
