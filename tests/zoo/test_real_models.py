"""Models from torchvision, timm and Transformers, unmodified: read, permuted, edited and put back."""

from __future__ import annotations

import contextlib
import random
from functools import cache

import pytest
import torch
from survey import observe

import neuroexapt as nx
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import permutation_error
from zoo.small_models import NAMES, batch, build

LAW = {torch.float32: 1e-4, torch.float64: 1e-9}  # relative; a wrong axis moves outputs by their own size
EXACT = {torch.float32: 1e-5, torch.float64: 1e-9}
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


def test_there_are_enough_models() -> None:
    assert len(NAMES) >= 25


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_permuting_every_free_axis_changes_nothing(name: str, dtype: torch.dtype) -> None:
    graph = surgeon_of(name, dtype).graph
    free = [group for group in graph.groups if not group.pin_reason]
    assert free
    tolerance = max(LAW[dtype], LAW[precision(name)])
    assert permutation_error(graph, torch.Generator().manual_seed(0), free) <= tolerance


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
