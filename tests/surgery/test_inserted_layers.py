"""Layers behind layers: dense, separable and linear, as the identity or behind a zero scale."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from contracts.networks import batch, build
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import trace
from neuroexapt.surgery import MUTATIONS, InsertLayer, Surgeon, Widen, candidates, parse
from neuroexapt.surgery.writing.graft import pieces_of

EXACT = 1e-10


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize(("site", "is_identity"), [("features.2", True), ("features.1", False)])
def test_a_separable_layer_starts_as_the_identity(site: str, is_identity: bool, kernel_size: int) -> None:
    model = build("conv_bn").eval()
    before = model(batch())
    Surgeon(model, batch()).apply(InsertLayer(site=site, kernel_size=kernel_size, layer="separable"))
    assert (model(batch()) - before).abs().max() <= EXACT
    (piece,) = pieces_of(model.get_submodule(site))
    assert (piece.scale is None) == is_identity
    assert piece.depthwise.weight.shape == (6, 1, kernel_size, kernel_size)
    model(batch()).square().sum().backward()
    first = piece.scale.grad if piece.scale is not None else piece.depthwise.weight.grad
    assert first.abs().max() > 0


def test_a_trained_separable_layer_grows_with_its_axis() -> None:
    model = build("conv_bn")
    Surgeon(model, batch()).apply(InsertLayer(site="features.2", layer="separable"))
    (piece,) = pieces_of(model.features[2])
    with torch.no_grad():
        piece.depthwise.weight.add_(0.1)
        piece.pointwise.weight.add_(0.1)
    assert Surgeon(model, batch()).apply(Widen(axis="features.0", to=9)).output_change <= EXACT
    assert (piece.depthwise.groups, piece.depthwise.weight.shape[0], piece.pointwise.in_channels) == (9, 9, 9)


def test_models_with_depthwise_layers_are_offered_separable_ones() -> None:
    def offered(network: str) -> set[str]:
        return {m.layer for m in candidates(trace(build(network), batch()), ["InsertLayer"])}

    assert offered("depthwise_se") == {"separable"}
    assert offered("conv_bn") == {"dense"}


def test_a_record_from_before_there_were_several_layers_still_opens() -> None:
    record = {"kind": "InsertLayer", "site": "features.2", "kernel_size": 3}
    assert parse(MUTATIONS, record) == InsertLayer(site="features.2", kernel_size=3, layer="dense")


def test_a_separable_layer_needs_a_feature_map_and_layers_have_known_names() -> None:
    with pytest.raises(SurgeryError, match=r"layers\.1: found no feature map, needed one for a separable layer"):
        Surgeon(build("mlp"), batch()).apply(InsertLayer(site="layers.1", kernel_size=1, layer="separable"))
    with pytest.raises(ValueError, match="needs layer: one of dense, separable, found 'deep'"):
        InsertLayer(site="a", layer="deep")  # type: ignore[arg-type]
    with pytest.raises(SurgeryError, match="mutation InsertLayer: needs layer: one of dense, separable"):
        parse(MUTATIONS, {"kind": "InsertLayer", "site": "a", "layer": ["dense"]})


def test_the_description_says_which_layer_it_is() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)), batch(torch.float32))
    assert InsertLayer(site="1", layer="separable").describe(graph) == "insert a 3x3 separable convolution behind 1"
    assert InsertLayer(site="1").describe(graph) == "insert a 3x3 convolution behind 1"
