"""The law of the graph, on every contract network and on networks that it can only partly edit."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

import neuroexapt.graph.permutation as permutation
from contracts.networks import NETWORKS, batch, build
from graph.extra_networks import EXTRA, build_extra
from neuroexapt.graph import ModelGraph, Space, distrusted_groups, permutation_error, relative_change, trace
from neuroexapt.surgery import MUTATIONS, Surgeon

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}  # relative; only the order of summation changes

# Groups that stay free, so that pinning everything does not pass for an answer.
FREE = {
    "channel_shuffle": 5, "split_shuffle": 4, "pixel_shuffle": 1, "swiglu": 1, "glu": 1, "two_streams": 5, "unet": 5,
    "group_norm": 5, "resnext": 4, "self_attention": 3, "transformer_layer": 3, "lstm": 3, "weight_norm": 3,
    "linear_se": 3, "padded_shortcut": 4, "slice_add": 3, "copied_buffer": 2, "fold": 2, "reversed_gradient": 2,
    "low_rank": 3, "grouped_query": 2, "einsum_attention": 3, "language": 2, "recursive": 1, "token_mixer": 2,
    "one_dimensional": 2, "normalised": 3,
}  # fmt: skip


def assert_law(graph: ModelGraph, dtype: torch.dtype) -> None:
    free = [g for g in graph.groups if not g.pin_reason]
    error = permutation_error(graph, torch.Generator().manual_seed(1), free)
    assert error <= TOLERANCES[dtype], distrusted_groups(graph, torch.Generator(), TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", NETWORKS)
def test_permuting_every_free_axis_leaves_a_contract_network_unchanged(name: str, dtype: torch.dtype) -> None:
    graph = trace(build(name, dtype), batch(dtype))
    assert not graph.unknown_operators
    assert_law(graph, dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", EXTRA)
def test_permuting_every_free_axis_leaves_a_hard_network_unchanged(name: str, dtype: torch.dtype) -> None:
    model, inputs = build_extra(name, dtype)
    graph = trace(model, inputs)
    assert sum(not g.pin_reason for g in graph.groups) == FREE[name]
    assert_law(graph, dtype)


EDITS_OF_AXES = ("Widen", "SplitUnits", "PruneUnits")  # these ask most of a graph
OTHER_EDITS = tuple(kind for kind in MUTATIONS if kind not in EDITS_OF_AXES)
EVERY = 4  # of the other kinds a network is edited by every fourth, and the next network by the next ones


@pytest.mark.filterwarnings("ignore:.*is deprecated.*")
@pytest.mark.parametrize("name", EXTRA)
def test_an_edit_that_a_hard_network_offers_is_exact(name: str) -> None:
    model, inputs = build_extra(name)
    surgeon = Surgeon(model, inputs)
    for kind in (*EDITS_OF_AXES, *OTHER_EDITS[list(EXTRA).index(name) % EVERY :: EVERY]):
        for mutation in surgeon.candidates([kind])[-1:]:
            patch = surgeon.apply(mutation)
            for mode in patch.changes.keys() - patch.declared:
                assert patch.changes[mode] <= TOLERANCES[torch.float64]
            surgeon.revert(patch)


class WrittenOrder(nn.Module):
    """Every unit is multiplied by its own number."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x) * torch.ones(1, 6, dtype=x.dtype).cumsum(1))


def test_an_order_that_the_code_writes_down_pins_the_axis() -> None:
    graph = trace(WrittenOrder(), torch.randn(2, 4))
    assert graph.group("up").pin_reason == "aten.cumsum in the model: the order of its indices matters"


def test_a_wrong_tie_is_found_by_halving_and_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("conv_bn")
    graph = trace(model, batch())
    broken = next(g for g in graph.groups if not g.pin_reason)
    original = ModelGraph.sources

    def forgets_a_member(self: ModelGraph, path: str, edits: dict) -> tuple[Tensor | None, ...]:
        maps = original(self, path, edits)
        return tuple(None for _ in maps) if path == broken.members[-1].path else maps

    monkeypatch.setattr(ModelGraph, "sources", forgets_a_member)
    found = distrusted_groups(graph, torch.Generator().manual_seed(0), 1e-6)
    assert [group.name for group, _ in found] == [broken.name]
    surgeon = Surgeon(model, batch())
    assert "the self-test failed: permuting it changed the outputs by" in surgeon.graph.group(broken.name).reason


def test_fresh_norms_do_not_hide_a_missing_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Conv2d(3, 9, 1), nn.BatchNorm2d(9), nn.Conv2d(9, 5, 1)).double()
    graph = trace(model, batch())
    original = ModelGraph.sources
    monkeypatch.setattr(ModelGraph, "sources", lambda s, p, e: (None,) if p.startswith("1.") else original(s, p, e))
    assert distrusted_groups(graph, torch.Generator().manual_seed(0), 1e-6)


def test_the_self_test_runs_on_copies_of_the_buffers() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 3)
            self.register_buffer("runs", torch.zeros(2))

        def forward(self, x: Tensor) -> Tensor:
            self.runs += 1
            return self.down(torch.relu(self.up(x)))

    model = Counts()
    distrusted_groups(trace(model, torch.randn(2, 4)), torch.Generator(), 1e-3)
    assert model.runs.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ([1.0, -math.inf], [1.0, -math.inf], 0.0),
        ([1.0, math.nan], [1.0, math.nan], 0.0),
        ([1.0, 2.0], [1.0, math.nan], math.inf),
        ([1.0, math.inf], [1.0, 2.0], math.inf),
        ([4.0, -2.0], [5.0, -2.0], 0.25),
        ([0.0], [0.0, 0.0], math.inf),
    ],
)
def test_relative_change_counts_what_differs(before: list[float], after: list[float], change: float) -> None:
    assert relative_change([torch.tensor(before)], [torch.tensor(after)]) == change


def wrongly_tied() -> ModelGraph:
    """A graph of a large batch in which two axes of one size were mistaken for one another."""
    model, inputs = build("conv_bn"), batch(size=16)
    graph = trace(model, inputs)
    graph.parameters["features.3.weight"] = dataclasses.replace(
        graph.parameters["features.3.weight"],
        dims=(graph.parameters["features.3.weight"].dims[0], Space(6), *graph.parameters["features.3.weight"].dims[2:]),
    )
    return graph


def test_a_large_batch_is_tested_on_two_of_its_samples_and_a_wrong_graph_is_still_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(permutation, "ENOUGH_BYTES", 1)
    sizes: list[int] = []
    graph = trace(build("conv_bn"), batch(size=16))
    graph.model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    assert not distrusted_groups(graph, torch.Generator(), 1e-10)
    assert sizes == [2, 2]
    found = distrusted_groups(wrongly_tied(), torch.Generator(), 1e-10)
    assert [group.name for group, _ in found] == ["features.0", "features.3.weight[1]"]


def test_a_forward_that_wants_its_own_batch_size_is_tested_on_that(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = build("conv_bn")

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).view(16, 5)

    monkeypatch.setattr(permutation, "ENOUGH_BYTES", 1)
    assert not distrusted_groups(trace(Fixed(), batch(size=16)), torch.Generator(), 1e-10)
