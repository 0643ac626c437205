"""``measure_evidence`` on what people hand it: batches, number formats, broken numbers, odd targets and models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import neuroexapt as nx
from contracts.state import fingerprint
from neuroexapt.analysis.estimators import ESTIMATORS
from neuroexapt.analysis.evidence import Evidence
from neuroexapt.analysis.measuring import ModelEvidence, measure_evidence
from neuroexapt.analysis.needs import bottlenecks
from neuroexapt.config import EvidenceConfig
from neuroexapt.errors import (
    BudgetError,
    ConfigError,
    InputError,
    ModelError,
    NeuroExaptError,
    NonFiniteActivationError,
)
from neuroexapt.resources import LiveStorages

ROUNDING = 1e-5  # of float32 sums over another batch
Batch = tuple[Any, Tensor]


class Poison(nn.Module):
    """Hands on what it gets; on request with a number that is not finite, forwards or backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.forwards = self.backwards = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if self.backwards:
            x = x.clone()
            x.register_hook(lambda gradient: gradient + self.backwards)
        return x + self.forwards if self.forwards else x


class Net(nn.Module):
    """Convolution, norm, dropout, a skip, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.block = nn.Conv2d(8, 8, 3, padding=1)
        self.poison = Poison()
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, 3)
        self.skips_block = False

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        if not self.skips_block:
            x = x + torch.relu(self.poison(self.block(x)))
        return self.head(self.dropout(x).mean((2, 3)))


def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net()
        for name, tensor in model.named_parameters():
            nn.init.normal_(tensor, std=0.4 if name.endswith("weight") else 0.1)
    return model.train()


def data(num_samples: int = 100) -> Batch:
    inputs = torch.randn(num_samples, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    return inputs, inputs.mean((2, 3)).gt(0).sum(1)


def batches(size: int, num_samples: int = 100) -> list[Batch]:
    inputs, targets = data(num_samples)
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def values(evidence: ModelEvidence) -> dict[str, Evidence]:
    found = {f"{layer.path} {name}": v for layer in evidence.layers for name, v in layer.values.items()}
    return found | {f"{edge.source} -> {edge.target}": edge.value for edge in evidence.edges}


GRAPH = nx.trace(net(), data(4)[0])


def state_of(model: nn.Module) -> Any:
    hooks = [(m._forward_hooks.copy(), m._forward_pre_hooks.copy(), m._backward_hooks.copy()) for m in model.modules()]
    return fingerprint(model, torch.optim.SGD(model.parameters())), hooks, torch.is_grad_enabled()


@cache
def plain() -> ModelEvidence:
    return measure_evidence(net(), batches(32))


def test_every_value_is_the_same_whatever_the_batch() -> None:
    whole = values(plain())
    assert {evidence.estimator for evidence in whole.values()} == {*ESTIMATORS, "information_loss"}
    for size in (8, 100):
        parts = values(measure_evidence(net(), batches(size)))
        assert whole.keys() == parts.keys()
        for name, evidence in whole.items():
            found = [(e.value, e.low, e.high) for e in (parts[name], evidence)]
            assert found[0] == pytest.approx(found[1], rel=ROUNDING, abs=ROUNDING), name


def test_every_value_agrees_between_float32_float64_and_autocast() -> None:
    single = values(plain())
    double = values(measure_evidence(net().double(), [(inputs.double(), targets) for inputs, targets in batches(32)]))
    with torch.autocast("cpu", torch.bfloat16):
        brain = values(measure_evidence(net(), batches(32)))
    assert single.keys() == double.keys() == brain.keys()
    for name, evidence in single.items():
        assert evidence.agrees_with(double[name]), name
        assert evidence.agrees_with(brain[name]), name


def fails_in_the_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets) * torch.nan


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("weight", "block: activation"),
        ("forwards", "head: what it reads"),
        ("backwards", "block: gradient"),
        ("", "loss"),
    ],
)
def test_a_number_that_is_not_finite_is_an_error_that_names_the_layer(where: str, message: str, number: float) -> None:
    model = net()
    if where == "weight":
        model.block.weight.data[3, 0, 0, 0] = number
    elif where:
        setattr(model.poison, where, number)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = state_of(model)
    with pytest.raises(NonFiniteActivationError, match=message):
        measure_evidence(model, batches(50), F.cross_entropy if where else fails_in_the_loss)
    assert state_of(model) == before


def broken_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    raise KeyError("a mistake in the user's loss")


def broken_stream() -> Iterator[Batch]:
    yield batches(16)[0]
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("stream", "loss", "error"),
    [(batches(50), broken_loss, ModelError), (broken_stream(), F.cross_entropy, OSError)],
    ids=["loss", "data"],
)
def test_whatever_raises_the_model_is_as_it_was(
    stream: Any, loss: Callable[[Tensor, Tensor], Tensor], error: type[Exception]
) -> None:
    model = net()
    model.head.register_forward_hook(lambda *_: None)
    before = state_of(model)
    with pytest.raises(error, match=r"mistake|disk"):
        measure_evidence(model, stream, loss)
    assert state_of(model) == before


def test_the_model_its_gradients_and_the_generator_are_as_before() -> None:
    model = net()
    F.cross_entropy(model(data()[0]), data()[1]).backward()
    before = state_of(model)
    measure_evidence(model, batches(8, 16))
    assert state_of(model) == before
    assert model.training


def test_a_budget_that_is_too_small_is_refused_before_anything_is_allocated() -> None:
    ready, live = batches(50), LiveStorages()
    for tensor in GRAPH.model.parameters():
        live.watch(tensor)
    before = live.peak_bytes
    with live, pytest.raises(BudgetError, match="stem: 16 samples of 8 units take"):
        measure_evidence(GRAPH.model, ready, config=EvidenceConfig(max_bytes_per_layer=4096), graph=GRAPH)
    assert live.peak_bytes == before


@pytest.mark.parametrize(
    ("stream", "names", "error", "message"),
    [
        (batches(50), ("entropies",), ConfigError, "unknown .'entropies'.; known are "),
        ([], None, InputError, "found no batch"),
    ],
    ids=["estimator", "batches"],
)
def test_what_is_missing_is_said(
    stream: list[Batch], names: tuple[str, ...] | None, error: type[NeuroExaptError], message: str
) -> None:
    with pytest.raises(error, match=message):
        measure_evidence(net(), stream, config=EvidenceConfig(estimators=names), graph=GRAPH)


@pytest.mark.parametrize("num_samples", [1, 3, 4, 9])
def test_few_samples_give_reasons_or_wide_intervals(num_samples: int) -> None:
    evidence = measure_evidence(GRAPH.model, batches(50, num_samples), graph=GRAPH)
    for layer in evidence.layers:
        assert bool(layer.values) == (num_samples >= 4)
        assert num_samples >= 4 or set(layer.missing.values()) == {f"found {num_samples} samples, needed 4 at least"}


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.hidden = nn.Linear(8, 12)
        self.head = nn.Linear(12, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.hidden(self.embedding(tokens))))


def next_token(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(outputs[:, 0], targets)


def odd_targets() -> dict[str, tuple[nn.Module, Batch, Callable[[Tensor, Tensor], Tensor]]]:
    tokens = torch.randint(7, (24, 6), generator=torch.Generator().manual_seed(0))
    inputs, classes = data(24)
    return {
        "regression": (net(), (inputs, inputs.mean((1, 2, 3))), squared),
        "language": (Words(), (tokens, tokens.roll(-1, 1)), next_token),
        "probabilities": (net(), (inputs, F.one_hot(classes, 3).float()), F.cross_entropy),
    }


@pytest.mark.parametrize("kind", ["regression", "language", "probabilities"])
def test_targets_that_are_no_classes_cost_only_what_is_about_classes(kind: str) -> None:
    model, batch, loss = odd_targets()[kind]
    evidence = measure_evidence(model, [batch], loss)
    about_labels = {name for name, estimator in ESTIMATORS.items() if "targets" in estimator.views}
    assert evidence.edges == ()
    (about,) = [note for note in evidence.notes if "not watched" not in note]
    assert about.startswith("nothing is said about labels: found targets ")
    for layer in evidence.layers:
        assert about_labels <= set(layer.missing)
        assert all("not one class for each sample" in layer.missing[name] for name in about_labels)
        assert not any(ESTIMATORS[name].values.keys() & layer.values.keys() for name in layer.missing)


def test_weights_of_other_layers_are_not_passed_over_in_silence() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 2, 3), nn.Flatten(), nn.Linear(50, 3))
    evidence = measure_evidence(model, [(torch.ones(24, 1, 5, 5), torch.arange(24) % 3)])
    assert [layer.path for layer in evidence.layers] == ["0", "4"]
    assert "2: not watched: it is of class ConvTranspose2d, no linear layer or convolution" in evidence.notes


def test_a_loss_that_does_not_take_the_targets_says_what_it_was_given() -> None:
    tokens = torch.randint(7, (24, 6), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ModelError, match=r"Expected target size.* of outputs \[24, 6, 7\] and targets \[24, 6\] that"):
        measure_evidence(Words(), [(tokens, tokens.roll(-1, 1))])


def test_a_loss_without_gradient_is_told() -> None:
    evidence = measure_evidence(net(), batches(24), lambda outputs, targets: outputs.sum() * 0.0)
    assert any(note.startswith("the gradient of the loss is 0 at every layer") for note in evidence.notes)
    assert "expressivity" in evidence.layers[0].missing


def test_a_layer_of_one_position_has_no_surroundings_and_needs_no_attention() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 6, generator=generator)
    evidence = measure_evidence(model, [(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long())])
    assert {layer.num_positions for layer in evidence.layers} == {1}
    assert not any("attention" in layer.needs for layer in bottlenecks(evidence).layers)
    assert {layer.num_positions for layer in measure_evidence(net(), batches(24)).layers} > {1}


def test_a_layer_that_does_not_run_on_these_data_is_left_out_with_the_reason() -> None:
    model = net()
    graph = nx.trace(model, data(4)[0])
    model.skips_block = True
    evidence = measure_evidence(model, batches(8, 16), graph=graph)
    assert [layer.path for layer in evidence.layers] == ["head"]  # the units of the stem are read at the block
    assert any(note.startswith("block: no features: it did not run") for note in evidence.notes)


def test_a_layer_that_runs_in_one_batch_only_is_left_out_too() -> None:
    model = net()
    graph = nx.trace(model, data(4)[0])

    def turning() -> Iterator[Batch]:
        for batch in batches(8, 16):
            yield batch
            model.skips_block = True

    evidence = measure_evidence(model, turning(), graph=graph)
    assert [layer.path for layer in evidence.layers] == ["head"]


def test_evidence_goes_to_json_and_back() -> None:
    evidence = plain()
    assert ModelEvidence.from_json(json.loads(json.dumps(evidence.to_json()))) == evidence


def test_a_model_without_layers_to_watch_gives_only_notes() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    evidence = measure_evidence(model, batches(8, 16))
    assert (evidence.layers, evidence.edges, evidence.num_samples) == ((), (), 0)


class Named(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pixels: Tensor, scale: Tensor) -> Tensor:
        return self.inner(pixels * scale)


def test_inputs_may_be_a_dictionary() -> None:
    named = [({"pixels": x, "scale": torch.ones(len(x), 1, 1, 1)}, y) for x, y in batches(32)]
    found = measure_evidence(Named(net()), named)
    assert [layer.path for layer in found.layers] == [f"inner.{layer.path}" for layer in plain().layers]
    for layer in plain().layers:
        assert found.layer(f"inner.{layer.path}").values.keys() == layer.values.keys()


def test_a_frozen_model_is_measured_like_any_other() -> None:
    frozen = net().requires_grad_(False)
    assert values(measure_evidence(frozen, batches(32))) == values(plain())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
