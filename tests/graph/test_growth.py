"""How an axis can grow: silent units, copies, or neither; and which parameters make a tensor."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroexapt.graph import Copies, ModelGraph, Silent, region, scaling, trace
from neuroexapt.graph.makers import Maker, Pick, vanishing
from neuroexapt.graph.space import Space, concatenation, leaves, product


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(6, 24)
        self.project = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.project(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))


class Chain(nn.Module):
    """One linear layer, a function of its units, another linear layer."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 5)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.function(self.first(x)))  # type: ignore[operator]


def traced(function: object) -> ModelGraph:
    return trace(Chain(function), torch.randn(2, 3))


def test_keys_and_queries_are_told_apart_inside_a_fused_projection() -> None:
    graph = trace(Attention(), torch.randn(2, 7, 6))
    scores = next(op for op in graph.tape if op.name == "bmm")
    head = graph.group("qkv.weight[0].2")
    made = vanishing(graph.tape, scores.number("mat2"), head.leaf)
    assert {maker.parameter for maker in made} == {"qkv.weight", "qkv.bias"}
    sizes = {head.leaf: 5}
    for maker in made:
        mask = region(graph.parameters[maker.parameter].dims, maker.picks, sizes)
        assert mask is not None
        assert mask.flatten().view(3, 2, 5).all((1, 2)).tolist() == [False, True, False]


def test_an_axis_that_only_parameters_read_grows_by_silent_units() -> None:
    graph = traced(torch.relu)
    assert graph.growth(graph.group("first").leaf) == Silent(frozenset())


@pytest.mark.parametrize(
    ("function", "power"),
    [
        (lambda x: F.layer_norm(x, x.shape[-1:]), -1),
        (lambda x: F.rms_norm(x, x.shape[-1:]), -1),
        (lambda x: x - x.mean(-1, keepdim=True), -1),
        (lambda x: x * x.amax(-1, keepdim=True), -1),
        (lambda x: x / x.sum(-1, keepdim=True), 0),
        (lambda x: x.softmax(-1), 0),
        (lambda x: x / x.norm(dim=-1, keepdim=True), Fraction(-1, 2)),
        (lambda x: x / x.var(-1, correction=0, keepdim=True), -1),
        (lambda x: x * x.square().sum(-1, keepdim=True).rsqrt(), Fraction(-1, 2)),
        (lambda x: x * x.square().sum(-1, keepdim=True).pow(-0.5), Fraction(-1, 2)),
    ],
    ids=["layer norm", "rms norm", "centred", "maximum", "l1", "softmax", "l2", "variance", "by hand", "power"],
)  # fmt: skip
def test_a_reading_weight_takes_back_what_copies_of_the_units_multiply(function: object, power: Fraction) -> None:
    graph = traced(function)
    found = graph.growth(graph.group("first").leaf)
    assert isinstance(found, Copies)
    assert found.powers == {("second.weight", 1): power}


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x.log_softmax(-1), "_log_softmax in the model reads across the axis"),
        (lambda x: x + x.sum(-1, keepdim=True), "joins what copies of the units scale"),
        (lambda x: x * x.sum(-1, keepdim=True).tanh(), "tanh in the model is not linear"),
        (lambda x: x * (1 + x.square().sum(-1, keepdim=True)), "adds a number to what copies"),
        (lambda x: x / x.std(-1, keepdim=True), "reads across the axis"),
        (lambda x: torch.cat([F.layer_norm(torch.cat([x, x[:, :1]], 1), (5,))[:, :3], x[:, 3:]], 1), "part"),
    ],
    ids=["log-softmax", "sum added", "bent sum", "one added", "unbiased deviation", "part of a norm"],
)
def test_what_copies_would_change_is_a_reason(function: object, reason: str) -> None:
    graph = traced(function)
    found = [graph.growth(g.leaf) for g in graph.groups if not g.pin_reason and "first.weight" in g.members[0].path]
    assert found
    assert all(isinstance(growth, str) and reason in growth for growth in found), found


def test_a_tensor_is_proportional_to_the_last_layer_that_made_it() -> None:
    graph = traced(lambda x: 2 * torch.relu(x))
    numbers = [op.outputs[0] for op in graph.tape if op.name in ("relu", "mul")]
    for number in numbers:
        assert scaling(graph.tape, number) == {Maker("first.weight"), Maker("first.bias")}


def test_nothing_makes_what_is_bent_or_shifted() -> None:
    graph = traced(lambda x: torch.tanh(x) + 1)
    assert all(not scaling(graph.tape, op.outputs[0]) for op in graph.tape if op.name in ("tanh", "add"))


def test_a_region_follows_the_sizes_of_what_lies_before_it() -> None:
    first, second, width = Space(2), Space(3), Space(4)
    dims = (product([concatenation([first, second]), width]),)
    pick = Pick(dims[0], 8, 20)
    mask = region(dims, frozenset({pick}), {first: 3, width: 5})
    assert mask is not None
    assert mask.tolist() == [False] * 15 + [True] * 15
    assert region(dims, frozenset({Pick(dims[0], 3, 20)}), {width: 5}) is None
    assert region(dims, frozenset({Pick(product([second, width]), 0, 4)}), {}) is None
    elsewhere = region(dims, frozenset({Pick(Space(9), 0, 1)}), {})
    assert elsewhere is not None
    assert elsewhere.all()
    assert {leaf.size for leaf in leaves(dims[0])} == {2, 3, 4}
