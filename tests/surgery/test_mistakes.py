"""What people get wrong: each message says where, what was found, what was needed and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch.optim import SGD

from contracts.networks import batch, build
from neuroexapt.errors import InputError, NeuroExaptError, SurgeryError
from neuroexapt.surgery import (
    ExpandBottleneck,
    HybridDivision,
    InsertLayer,
    Lineage,
    PruneUnits,
    PruneWeights,
    RemoveLayer,
    SplitUnits,
    Surgeon,
    SwapOperation,
    Widen,
)


def surgeon(network: str = "conv_bn") -> Surgeon:
    return Surgeon(build(network), batch())


ON_MODELS: list[tuple[Callable[[], Any], str]] = [
    (lambda: surgeon().apply({"kind": "Widen"}), r"mutation: found a dict, needed a mutation such as Widen\("),  # type: ignore[arg-type]
    (lambda: surgeon().plan([Widen(axis="0", to=3)]), r"mutation: found a list, needed a mutation .* One at a time"),  # type: ignore[arg-type]
    (lambda: surgeon().measure_change(Widen), "mutation: found the class Widen, needed a mutation"),  # type: ignore[arg-type]
    (lambda: surgeon().candidates("Widen"), r"kinds: found 'Widen', needed a sequence .* Give \['Widen'\]"),
    (lambda: surgeon().candidates([Widen]), r"kinds: unknown .*Widen'>; known are Widen, "),  # type: ignore[list-item]
    (lambda: surgeon().candidates(growth=0.5), r"growth: found 0\.5, needed .* more than 1"),
    (lambda: surgeon().apply(InsertLayer(site="")), "the model itself: cannot hang a piece here"),
    (lambda: surgeon("mlp").apply(InsertLayer(site="layers.1", layer="separable")), "Use layer='dense', kernel_size=1"),
    (lambda: surgeon("mlp").apply(InsertLayer(site="layers.1")), "found 3, needed 1. Give kernel_size=1"),
    (lambda: surgeon().apply(Widen(axis="faetures.0", to=9)), r"Did you mean features\.0\?"),
    (lambda: Lineage.from_json([]), "lineage: found a list, needed a dictionary"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("mistake", "message"), ON_MODELS)
def test_a_mistake_is_answered_in_words(mistake: Callable[[], Any], message: str) -> None:
    with pytest.raises(NeuroExaptError, match=message):
        mistake()


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: SplitUnits(axis="a", units=3), "needs axis: str and units: distinct ints >= 0, found 'a' and 3"),
        (lambda: PruneUnits(axis="a", units=3), "needs units: a sequence of at least one int >= 0, found 3"),
        (lambda: RemoveLayer(path=""), "needs path: str, not empty, .* found '' and 'bypass'"),
        (lambda: HybridDivision(parts=("Widen",), max_parameters=9), "found 'Widen', needed a dictionary"),
        (
            lambda: ExpandBottleneck(axis="a", to=9, block="", evidence="rank"),
            "one of effective rank, relative width, found '' and 'rank'",
        ),
    ],
)
def test_a_field_that_cannot_be_is_refused_with_what_it_was(mistake: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, SurgeryError), match=message):
        mistake()


def test_an_optimizer_that_holds_nothing_of_the_model_is_refused_before_any_edit() -> None:
    mine, other = build("conv_bn"), build("conv_bn")
    with pytest.raises(InputError, match=r"SGD holds no parameter of ConvBatchNorm\. Give the optimizer of this model"):
        Surgeon(mine, batch(), [SGD(mine.parameters(), lr=0.1), SGD(other.parameters(), lr=0.1)])


def test_words_for_people() -> None:
    running = surgeon()
    graph = running.graph
    assert SplitUnits(axis="features.0", units=(1,)).describe(graph) == "split 1 unit of features.0 (asymmetric)"
    both = HybridDivision(
        parts=(Widen(axis="features.0", to=9), InsertLayer(site="features.2", kernel_size=1)), max_parameters=999
    )
    assert both.describe(graph) == "widen features.0 from 6 to 9 and insert a layer at features.2"
    larger = SwapOperation(site="features.0", to="conv", kernel_size=5)
    assert larger.describe(graph) == "turn features.0 from Conv2d into a 5x5 convolution"
    smoother = SwapOperation(site="features.2", to="gelu")
    assert smoother.describe(graph) == "turn features.2 from ReLU into gelu"
    running.apply(InsertLayer(site="features.2"))
    assert smoother.describe(running.graph) == "turn features.2 from ReLU into gelu"
    with pytest.raises(SurgeryError, match="it is a ReLU, and only linear"):
        running.apply(PruneWeights(layer="features.2", amount=0.5))
