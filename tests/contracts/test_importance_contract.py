"""What every importance keeps to, on every contract network: shape, sign, purity, and no unit knows its number."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import SGD

from contracts.networks import NETWORKS, batch, build
from contracts.state import fingerprint
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph, named_tensors, trace
from neuroexapt.surgery.removal.importance import IMPORTANCES, importance

ROUNDING = 1e-9  # of float64 sums in another order

every_kind = pytest.mark.parametrize("kind", IMPORTANCES)
every_network = pytest.mark.parametrize("network", NETWORKS)
some_networks = pytest.mark.parametrize("network", ["plain_conv", "resnet_bottleneck", "transformer", "tied_weights"])


def objective(model: nn.Module) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch()), torch.arange(4) % 5)


def traced(model: nn.Module) -> ModelGraph:
    return trace(model, batch(), objective)


@every_network
@every_kind
def test_every_unit_of_every_group_gets_a_finite_number_that_is_not_negative_and_nothing_else_happens(
    kind: str, network: str
) -> None:
    model = build(network)
    optimizer = SGD(model.parameters(), lr=0.1)
    graph, before = traced(model), fingerprint(model, optimizer)
    scores = importance(graph, graph.groups, kind)
    assert fingerprint(model, optimizer) == before
    for group, score in zip(graph.groups, scores, strict=True):
        assert score.shape == (group.size,)
        assert score.dtype == torch.float64
        assert bool(score.isfinite().all())
        assert bool((score >= 0).all())
    assert any(bool((score > 0).all()) for score in scores)


@some_networks
@every_kind
def test_permuted_units_have_permuted_importance(kind: str, network: str) -> None:
    model, other = build(network), build(network)
    graph = traced(model)
    free = [group for group in graph.groups if not group.pin_reason]
    before = dict(zip((g.name for g in free), importance(graph, free, kind), strict=True))
    generator = torch.Generator().manual_seed(4)
    orders = {group.leaf: torch.randperm(group.size, generator=generator) for group in free}
    for path, tensor in named_tensors(other).items():
        for dim, indices in enumerate(graph.sources(path, orders)):
            if indices is not None:
                tensor.data.copy_(tensor.data.index_select(dim, indices))
    after = traced(other)
    for group in free:
        (score,) = importance(after, [after.group(group.name)], kind)
        wanted = before[group.name][orders[group.leaf]]
        assert bool(((score - wanted).abs() <= ROUNDING * wanted.max()).all())


@every_kind
def test_on_the_meta_device_all_units_are_alike(kind: str) -> None:
    graph = trace(build("mlp").to("meta"), batch().to("meta"))
    assert all(bool((score == 1).all()) for score in importance(graph, graph.groups, kind))


def test_an_unknown_kind_names_those_that_are_known() -> None:
    graph = traced(build("mlp"))
    with pytest.raises(SurgeryError, match="unknown kind 'guess'; known are magnitude, taylor, fisher, activation"):
        importance(graph, graph.groups, "guess")


@pytest.mark.parametrize("kind", ["taylor", "fisher"])
def test_gradients_without_an_objective_are_refused_with_what_to_give(kind: str) -> None:
    graph = trace(build("mlp"), batch())
    with pytest.raises(SurgeryError, match="found no objective"):
        importance(graph, graph.groups, kind)
