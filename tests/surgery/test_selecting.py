"""Choosing units over a whole network: as many parameters as wanted, dead units first, floors kept."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from contracts.networks import batch, build
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import trace
from neuroexapt.surgery import PruneUnits, Surgeon, select_units


def objective(model: nn.Module) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch()), torch.arange(4) % 5)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("network", ["resnet_basic", "dense_concat", "mlp"])
def test_the_wanted_fraction_goes_and_little_more(network: str, scope: str) -> None:
    model = build(network)
    surgeon, before = Surgeon(model, batch(), objective=objective), count(build(network))
    chosen = select_units(surgeon.graph, fraction=0.3, importance="fisher", scope=scope)  # type: ignore[arg-type]
    largest = max(-surgeon.apply(edit).parameter_delta // len(edit.units) for edit in chosen)
    gone = before - count(model)
    assert 0.3 * before <= gone <= 0.3 * before + largest + 1
    assert len({edit.axis for edit in chosen}) == len(chosen)


def test_dead_units_go_first_and_exactly() -> None:
    model = build("plain_conv")
    with torch.no_grad():
        model.conv2.weight[:, 2] = 0
        model.conv1.weight[2] *= 1e3  # by magnitude the last to go
    surgeon = Surgeon(model, batch())
    chosen = select_units(surgeon.graph, num_parameters=1)
    assert chosen == (PruneUnits(axis="conv1", units=(2,)),)
    assert not surgeon.apply(chosen[0]).declared


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_no_group_falls_below_its_floor_whatever_is_asked(scope: str) -> None:
    model = build("resnet_basic")
    surgeon = Surgeon(model, batch())
    sizes = {group.name: group.size for group in surgeon.graph.groups}
    for edit in select_units(surgeon.graph, fraction=0.99, scope=scope, min_units=3, max_share=0.5):  # type: ignore[arg-type]
        assert sizes[edit.axis] - len(edit.units) >= max(3, math.ceil(0.5 * sizes[edit.axis]))
        surgeon.apply(edit)
    assert model(batch()).shape == (4, 5)


def test_without_numbers_the_structure_alone_is_chosen() -> None:
    graph = trace(build("mlp").to("meta"), batch().to("meta"))
    assert {edit.axis for edit in select_units(graph, fraction=0.3, scope="layer")} == {"layers.1", "layers.3"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "needs either fraction or num_parameters"),
        ({"fraction": 0.3, "num_parameters": 3}, "needs either fraction or num_parameters"),
        ({"fraction": 1.0}, r"needed a fraction in \(0, 1\)"),
        ({"fraction": 0.3, "scope": "everywhere"}, "needed a scope in"),
        ({"fraction": 0.3, "importance": "guess"}, "unknown kind 'guess'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], why: str) -> None:
    with pytest.raises(SurgeryError, match=why):
        select_units(trace(build("mlp"), batch()), **arguments)  # type: ignore[arg-type]
