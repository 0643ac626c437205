"""Models from torchvision, timm and Transformers, unmodified: read, permuted, edited and put back."""

from __future__ import annotations

import contextlib
import random
from functools import cache
from typing import Any

import pytest
import torch
from survey import observe
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import neuroexapt as nx
from neuroexapt.analysis.measuring import measure_evidence
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import permutation_error
from zoo.small_models import NAMES, batch, build

LAW = {torch.float32: 1e-4, torch.float64: 1e-9}  # relative; a wrong axis moves outputs by their own size
EXACT = {torch.float32: 1e-5, torch.float64: 1e-9}
MEASURED = ("torchvision_efficientnet", "torchvision_vit", "gpt2", "t5")
KINDS = ("Widen", "InsertLayer")


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Every model; of the whole module, so that the tests of one model follow each other and share its graphs."""
    return str(request.param)


@cache
def surgeon_of(name: str, dtype: torch.dtype) -> nx.Surgeon:
    return nx.Surgeon(build(name, dtype), batch(name, dtype, seed=1))


def applied_somewhere(surgeon: nx.Surgeon, kind: str, seed: int) -> nx.Patch | None:
    """Applies one edit at the first of the places, in random order, that admits it."""
    graph = surgeon.graph
    if kind == "Widen":
        free = [group for group in graph.groups if not group.static_reason]
        places: list[nx.Mutation] = [nx.Widen(axis=group.name, to=2 * group.size) for group in free]
    else:
        places = surgeon.candidates([kind])
    random.Random(seed).shuffle(places)
    for mutation in places:
        with contextlib.suppress(SurgeryError):
            return surgeon.apply(mutation)
    return None


@cache
def precision(name: str) -> torch.dtype:
    """float32 for a forward that computes in it whatever the weights are."""
    with observe.SinglePrecision() as single, torch.no_grad():
        observe.call(build(name, torch.float64), batch(name, torch.float64, seed=1))
    return torch.float32 if single.seen else torch.float64


def mean_square(outputs: Any, targets: Tensor) -> Tensor:
    """A loss of whatever a model gives."""
    found = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return torch.stack([leaf.square().mean() for leaf in found]).sum()


def test_there_are_enough_models() -> None:
    assert len(NAMES) >= 25


@pytest.mark.parametrize(
    "dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.float64], ids=["float32", "float64"]
)
def test_permuting_every_free_axis_changes_nothing(name: str, dtype: torch.dtype) -> None:
    graph = surgeon_of(name, dtype).graph
    free = [group for group in graph.groups if not group.pin_reason]
    assert free
    tolerance = max(LAW[dtype], LAW[precision(name)])
    assert permutation_error(graph, torch.Generator().manual_seed(0), free) <= tolerance


@pytest.mark.parametrize("measured", MEASURED)
def test_evidence_of_every_layer_with_a_weight_is_given_or_it_is_said_why_not(measured: str) -> None:
    graph = surgeon_of(measured, torch.float64).graph
    inputs = batch(measured, torch.float64, seed=1)
    count = next(len(leaf) for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor))
    evidence = measure_evidence(graph.model, [(inputs, torch.arange(count))] * 2, mean_square, graph=graph)
    explained = {note.split(":")[0] for note in evidence.notes} | {layer.path for layer in evidence.layers}
    ran = {call.path for call in graph.calls}
    weighted = {p for p, m in graph.model.named_modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)}
    assert ran & weighted <= explained
    assert all(layer.values for layer in evidence.layers)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_keeps_the_function_and_is_taken_back_to_the_bit(name: str, kind: str) -> None:
    surgeon = surgeon_of(name, torch.float64)
    model, unseen = surgeon.model, batch(name, torch.float64, seed=2)
    before, whole = observe.both_modes(model, unseen), observe.fingerprint(model)
    patch = applied_somewhere(surgeon, kind, seed=len(name))
    if patch is None:
        pytest.skip(f"{name} admits no {kind}")
    for mode, old in before.items():
        new = observe.outputs(model, unseen, training=mode == "train")
        assert observe.relative_change(old, new) <= EXACT[precision(name)]
    surgeon.revert(patch)
    assert observe.difference(whole, observe.fingerprint(model)) == ""
