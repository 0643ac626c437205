"""The prediction of what training costs after an edit, against allocations as ``torch.profiler`` counts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from survey.step_bytes import measured
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.optim import LBFGS, SGD, Adafactor, Adagrad, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import StepLR
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contracts.networks import MLP, BasicBlock, DenseConcat, ResNet, Transformer
from neuroexapt.errors import BudgetError, SurgeryError
from neuroexapt.surgery import Budget, InsertLayer, Mutation, Surgeon, Widen

BAR = 0.1  # of the measured bytes

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: SGD(p, lr=1e-3),
    "momentum": lambda p: SGD(p, lr=1e-3, momentum=0.9),
    "adamw": lambda p: AdamW(p, lr=1e-3),
    "amsgrad": lambda p: Adam(p, lr=1e-3, amsgrad=True),
    "rmsprop": lambda p: RMSprop(p, lr=1e-3, centered=True, momentum=0.5),
    "adagrad": lambda p: Adagrad(p, lr=1e-3),
    "adafactor": lambda p: Adafactor(p, lr=1e-3),
    "foreach": lambda p: Adam(p, lr=1e-3, foreach=True),
}


class ConvBatchNorm(nn.Sequential):
    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for before, after in ((3, 16), (16, 24), (24, 32)):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Mutation, Mutation]] = {
    "mlp": (MLP, Widen(axis="layers.1", to=40), InsertLayer(site="layers.2", kernel_size=1)),
    "conv_bn": (ConvBatchNorm, Widen(axis="3", to=48), InsertLayer(site="5")),
    "resnet": (
        lambda: ResNet(BasicBlock(6, 16), BasicBlock(16, 24, 2), out=24),
        Widen(axis="blocks.0.conv1", to=48),
        InsertLayer(site="blocks.0.bn1"),
    ),
    "transformer": (Transformer, Widen(axis="up", to=48), InsertLayer(site="attention.proj", kernel_size=1)),
}


def images() -> Tensor:
    return torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def state_of(optimizer: Optimizer) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(list(optimizer.state.values())) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("name", NETWORKS)
def test_bytes_are_predicted_within_a_tenth_before_and_after_edits(name: str) -> None:
    build, *mutations = NETWORKS[name]
    model, x = build(), images()
    optimizer = AdamW(model.parameters(), lr=1e-3)
    surgeon = Surgeon(model, x[:4], optimizer)
    assert surgeon.forecast(batch_size=32).peak_bytes == pytest.approx(measured(model, x, optimizer), rel=BAR)
    for mutation in mutations:
        before, forecast = surgeon.graph.cost, surgeon.forecast(mutation, batch_size=32)
        optimizer.zero_grad()
        patch = surgeon.apply(mutation)
        assert forecast.num_parameters == before.num_parameters + patch.parameter_delta
        assert forecast.flops_per_sample == before.flops_per_sample + patch.flop_delta
        assert forecast.peak_bytes == pytest.approx(measured(model, x, optimizer), rel=BAR)
        assert forecast.optimizer_bytes == sum(t.nbytes for t in state_of(optimizer))
        assert forecast.gradient_bytes == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_each_optimizer_says_itself_what_it_keeps(kind: str) -> None:
    model, x = MLP(), images()
    optimizer = OPTIMIZERS[kind](model.parameters())
    StepLR(optimizer, 1)  # puts a step of its own on the optimizer
    optimizer.register_step_post_hook(lambda *_: pytest.fail("the user's hook ran") if not is_real else None)
    is_real = False
    forecast = Surgeon(model, x, optimizer).forecast()
    assert kind == "adagrad" or not optimizer.state  # it makes its own when it is made
    is_real = True
    found = measured(model, x, optimizer)
    assert forecast.optimizer_bytes == sum(t.nbytes for t in state_of(optimizer))
    assert forecast.peak_bytes == pytest.approx(found, rel=BAR)


def test_averages_and_frozen_parameters_are_counted_as_they_are() -> None:
    model, x = MLP(), images()
    model.layers[1].requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    surgeon = Surgeon(model, x, Adam(model.parameters(), lr=1e-3), averages=AveragedModel(model))
    forecast = surgeon.forecast()
    assert forecast.average_bytes == forecast.parameter_bytes
    assert forecast.gradient_bytes == sum(p.nbytes for p in trained)
    assert forecast.optimizer_bytes == sum(2 * p.nbytes + 4 for p in trained)


class Allocations(TorchDispatchMode):
    """The largest real tensor that anything made."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and not isinstance(leaf, FakeTensor) and not leaf.is_meta:
                self.largest = max(self.largest, leaf.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("limit", ["parameters", "flops_per_sample", "bytes"])
@pytest.mark.parametrize(
    "mutation",
    [Widen(axis="layers.1", to=10_000), InsertLayer(site="layers.2", kernel_size=1)],
    ids=["widen", "insert"],
)
def test_an_edit_beyond_the_budget_is_refused_before_anything_is_allocated(limit: str, mutation: Mutation) -> None:
    model = MLP()
    model.layers[1], model.layers[3] = nn.Linear(192, 300), nn.Linear(300, 7)
    x = images()[:2]
    surgeon = Surgeon(model, x, Adam(model.parameters()))
    now = surgeon.forecast()
    value = {
        "parameters": now.num_parameters,
        "flops_per_sample": now.flops_per_sample,
        "bytes": now.peak_bytes,
    }[limit]
    surgeon.budget = Budget(**{limit: value + 1})
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    surgeon.graph.cost  # noqa: B018 - the self-test runs the model as it is, on real tensors
    with Allocations() as allocations, pytest.raises(BudgetError, match=rf"needed at most {value + 1:,} by the budget"):
        surgeon.apply(mutation)
    assert allocations.largest <= 8 * 10_000  # where each unit comes from; one weight of the plan has 24 times that
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert not surgeon.lineage
    surgeon.budget = Budget(**{limit: 100 * value})
    if isinstance(mutation, InsertLayer):
        surgeon.apply(mutation)


def test_an_edit_that_lowers_what_is_beyond_the_budget_is_admitted() -> None:
    surgeon = Surgeon(DenseConcat(), images()[:2])
    surgeon.budget = Budget(parameters=10)
    with pytest.raises(BudgetError, match=r"parameters after it, needed at most 10"):
        surgeon.apply(Widen(axis="convs.0", to=9))
    surgeon.budget.check(
        lambda: surgeon.prospect(surgeon.plan(Widen(axis="convs.0", to=9)), None),
        surgeon.prospect(surgeon.plan(Widen(axis="convs.0", to=4)), None),
        "a smaller one",
    )


def test_an_optimizer_that_cannot_be_tried_is_named() -> None:
    model = MLP()
    surgeon = Surgeon(model, images(), LBFGS(model.parameters()))
    with pytest.raises(SurgeryError, match=r"LBFGS: a step on a few entries.* without a closure"):
        surgeon.forecast()


@pytest.mark.parametrize("limits", [{"parameters": 0}, {"bytes": 1.5}, {"flops_per_sample": True}])
def test_a_limit_is_a_whole_number_from_one_on(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Budget\.\w+: found .*, needed a whole number"):
        Budget(**limits)


def test_a_model_on_the_meta_device_is_predicted_too() -> None:
    real, bare = MLP(), MLP().to("meta")
    mutation = Widen(axis="layers.1", to=40)
    forecasts = [Surgeon(m, images(), Adam(m.parameters())).forecast(mutation) for m in (real, bare)]
    assert forecasts[0] == forecasts[1]
