"""How the new units of ``Widen`` begin, and how many they are."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from contracts.networks import NETWORKS, batch, build
from contracts.state import fingerprint
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import NEW, ModelGraph, trace
from neuroexapt.surgery import Surgeon, Widen
from neuroexapt.surgery.checking.structure import structure_of

EXACT = 1e-10  # float64, relative: summation order is all that may differ

PLACES = [  # one widenable axis a network: plain, norm, grouped, depthwise, concatenated, flattened, tied, transformer
    ("plain_conv", "conv1"),
    ("conv_bn", "features.0"),
    ("resnet_basic", "blocks.0.conv1"),
    ("resnet_bottleneck", "blocks.1.conv1.weight[0].0"),
    ("resnet_bottleneck", "blocks.1.conv1.weight[0].1"),
    ("dense_concat", "convs.0"),
    ("depthwise_se", "stem"),
    ("flatten_linear", "conv"),
    ("mlp", "layers.3"),
    ("transformer", "up"),
    ("tied_weights", "up"),
]


def outputs(model: nn.Module, training: bool) -> torch.Tensor:
    unseen = 3 * torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
    with torch.no_grad():
        return copy.deepcopy(model).train(training)(unseen)


def graph_of(network: str) -> ModelGraph:
    return trace(build(network), batch())


def test_the_places_are_on_every_contract_network() -> None:
    assert {network for network, _ in PLACES} == set(NETWORKS)


@pytest.mark.parametrize("init", ["copy", "pair"])
@pytest.mark.parametrize(("network", "axis"), PLACES)
def test_every_init_preserves_the_function_in_both_modes(network: str, axis: str, init: str) -> None:
    model = build(network)
    before = [outputs(model, training) for training in (False, True)]
    surgeon = Surgeon(model, batch())
    size = surgeon.graph.group(axis).size
    surgeon.apply(Widen(axis=axis, to=size + 2, init=init))
    for old, training in zip(before, (False, True), strict=True):
        assert (outputs(model, training) - old).abs().max() <= EXACT * old.abs().max()
    assert surgeon.graph.group(axis).size == size + 2


def test_copies_have_uneven_shares_that_sum_to_one_and_the_moments_of_their_originals() -> None:
    model = build("mlp")
    optimizer = AdamW(model.parameters(), lr=1e-3)
    model(batch()).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    up, down = model.layers[3], model.layers[5]
    old = down.weight.detach().clone()
    patch = Surgeon(model, batch(), optimizer).apply(Widen(axis="layers.3", to=18, init="copy"))
    sources = patch.sources["layers.3.weight"].maps[0]
    assert sources is not None
    assert (torch.bincount(sources) >= 2).all()
    assert len(sources) == 18
    assert torch.equal(up.weight[7:], up.weight[sources[7:]])
    moments = optimizer.state[up.weight]["exp_avg"]
    assert moments.any()
    assert torch.equal(moments[7:], moments[sources[7:]])
    total = torch.zeros_like(old).index_add_(1, sources, down.weight.detach())
    assert (total - old).abs().max() <= EXACT * old.abs().max()
    shares = down.weight.detach() / old[:, sources]
    assert (shares[:, 7:] - shares[:, sources[7:]]).abs().min() > 1e-6


def test_pairs_have_equal_incoming_and_opposite_outgoing_weights() -> None:
    model = build("mlp")
    patch = Surgeon(model, batch()).apply(Widen(axis="layers.3", to=11, init="pair"))
    up, down = model.layers[3], model.layers[5]
    assert torch.equal(up.weight[7::2], up.weight[8::2])
    assert torch.equal(up.bias[7::2], up.bias[8::2])
    assert torch.equal(down.weight[:, 7::2], -down.weight[:, 8::2])
    assert down.weight[:, 7:].all()
    assert not torch.equal(up.weight[7], up.weight[9])
    assert (patch.sources["layers.3.weight"].maps[0] == NEW).sum() == 4


def test_pairs_of_a_flattened_axis_are_opposite_at_every_position() -> None:
    model = build("flatten_linear")
    Surgeon(model, batch()).apply(Widen(axis="conv", to=6, init="pair"))
    columns = model.fc1.weight.detach().view(9, 6, 16)
    assert torch.equal(columns[:, 4], -columns[:, 5])
    assert columns[:, 4].all()


def test_an_average_of_the_model_gets_its_own_copies_and_the_same_pairs() -> None:
    for init in ("copy", "pair"):
        model = build("mlp")
        average = copy.deepcopy(model).requires_grad_(False)
        with torch.no_grad():
            for parameter in average.parameters():
                parameter.mul_(0.5)
        before = outputs(average, False)
        Surgeon(model, batch(), averages=average).apply(Widen(axis="layers.3", to=9, init=init))
        assert (outputs(average, False) - before).abs().max() <= EXACT * before.abs().max()
        if init == "pair":
            assert torch.equal(average.layers[5].weight[:, 7:], model.layers[5].weight[:, 7:])


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"to": 9}, 9),
        ({"ratio": 1.5}, 10),
        ({"ratio": 1.01}, 8),
        ({"multiple_of": 8}, 8),
        ({"ratio": 1.5, "multiple_of": 8}, 16),
        ({"to": 17, "multiple_of": 64}, 64),
    ],
)
def test_the_number_of_units_is_given_as_such_or_as_a_ratio_or_as_a_multiple(
    asked: dict[str, float], size: int
) -> None:
    model = build("mlp")
    mutation = Widen(axis="layers.3", **asked)
    assert mutation.describe(trace(model, batch())) == f"widen layers.3 from 7 to {size}"
    Surgeon(model, batch()).apply(mutation)
    assert model.layers[3].out_features == size


def test_a_ratio_or_a_multiple_of_a_stream_read_by_norms_goes_on_to_what_copies_admit() -> None:
    graph = graph_of("transformer")
    assert Widen(axis="embed", ratio=1.1).size_in(graph) == 16
    assert Widen(axis="embed", to=9, multiple_of=12).size_in(graph) == 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs to, ratio or multiple_of > 1, found none"),
        ({"to": 8, "ratio": 1.5}, "needs to or ratio, found both"),
        ({"ratio": 1.0}, "needs a ratio > 1"),
        ({"to": 8, "multiple_of": 0}, "needs multiple_of: int >= 1"),
        ({"to": 8, "init": "xavier"}, "needs init to be one of zero_fan_out, copy, pair"),
    ],
)
def test_fields_that_make_no_sense_are_refused_on_construction(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Widen(axis="layers.3", **arguments)


@pytest.mark.parametrize(
    ("network", "mutation", "message"),
    [
        ("mlp", Widen(axis="layers.3", to=10, init="pair"), "pairs need an even number of new units, found 3"),
        ("mlp", Widen(axis="layers.3", to=7), "found 7 units, needed fewer than 7"),
        ("transformer", Widen(axis="embed", to=16, init="pair"), "can only be copied.*init='pair' is not possible"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason_before_anything_changes(
    network: str, mutation: Widen, message: str
) -> None:
    model = build(network)
    optimizer = AdamW(model.parameters())
    before = fingerprint(model, optimizer)
    with pytest.raises(SurgeryError, match=message):
        Surgeon(model, batch(), optimizer).apply(mutation)
    assert fingerprint(model, optimizer) == before


@pytest.mark.parametrize("init", ["copy", "pair"])
def test_inits_are_planned_on_the_meta_device_too(init: str) -> None:
    model = structure_of(build("mlp"))
    Surgeon(model, batch()).apply(Widen(axis="layers.3", to=9, init=init))
    assert model.layers[5].weight.shape == (5, 9)
    assert model.layers[5].weight.is_meta
