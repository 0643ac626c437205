"""Axes that are addressed by number are pinned; the others pass untouched, and the permutation law holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graph.programs import holding, law, read, spaces
from neuroexapt.graph import trace
from neuroexapt.graph.values import Role

ADDRESSED = "rows are addressed by number"


class RelativeBias(nn.Module):
    """Attention over four tokens with a table of biases, one column a head, whose rows a buffer names."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(6, 18), nn.Linear(6, 5)
        self.table = nn.Parameter(torch.randn(7, 3))
        self.register_buffer("rows", torch.arange(4)[:, None] - torch.arange(4)[None] + 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(2, 4, 3, 3, 2).permute(2, 0, 3, 1, 4)
        bias = self.table[self.rows.view(-1)].view(4, 4, -1).permute(2, 0, 1)
        y = torch.softmax(q @ k.transpose(-1, -2) + bias, -1) @ v
        return self.out(y.transpose(1, 2).flatten(2))


def test_the_heads_of_a_relative_position_table_stay_free() -> None:
    graph = trace(RelativeBias().double(), torch.randn(2, 4, 6).double())
    (rows,), (heads,) = spaces(graph, "table", 0), spaces(graph, "table", 1)
    assert ADDRESSED in (rows.pin_reason or "")
    assert heads is spaces(graph, "qkv.weight", 0)[1] is spaces(graph, "out.weight", 1)[0]
    assert graph.roles["table", 1] == {Role.SHIFT}
    assert law(graph) == 2  # heads, and the width that queries, keys and values share


numbers = torch.tensor([0, 2, 1, 2])


@pytest.mark.parametrize(
    ("function", "free"),
    [
        (lambda y, a: y[:, numbers], [False, True]),
        (lambda y, a: y[:, numbers[:2, None], numbers[None, :2]], [False, False]),
        (lambda y, a: y[numbers.clamp(max=1), :, numbers], [True, False]),
        (lambda y, a: y.index_select(1, numbers), [False, True]),
        (lambda y, a: y.gather(1, numbers[None, :, None].expand(2, 4, 5)), [False, True]),
        (lambda y, a: y.take_along_dim(numbers[None, :, None], 1), [False, True]),
        (lambda y, a: y.scatter(1, numbers[None, :2, None].expand(2, 2, 5), y[:, :2] * 2), [False, True]),
        (lambda y, a: y.scatter_add(1, numbers[None, :, None].expand(2, 4, 5), y), [False, True]),
        (lambda y, a: y.index_add(1, numbers, y), [False, True]),
        (lambda y, a: y.index_copy(1, numbers[:2], y[:, 2:]), [False, True]),
        (lambda y, a: y.index_fill(1, numbers[:2], 3.0), [False, True]),
        (lambda y, a: y.index_put((torch.tensor([0, 1]),), y.new_ones(5)), [True, True]),
        (lambda y, a: y.index_put((torch.tensor([0]), torch.tensor([2])), y[0, 1]), [False, True]),
        (lambda y, a: y.masked_fill(y > 0, 0.5), [True, True]),
        (lambda y, a: torch.bucketize(y, torch.tensor([0.0, 0.5]).double()).double() * a, [True, True]),
    ],
)
def test_indexing_pins_the_axes_that_it_addresses_and_no_other(
    function: Callable[[Tensor, Tensor], Tensor], free: list[bool]
) -> None:
    def program(x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        y = F.linear(x, a)[:, None] * b  # [2, 4, 5]
        z = function(y, c)
        return z.square().sum(tuple(range(1, z.dim())))

    graph = read(program, (5, 3), (4, 1), (5,), x=(2, 3))
    assert not graph.unknown_operators
    assert [all(s.pin_reason is None for s in spaces(graph, n, 0)) for n in ("p1", "p0")] == free
    law(graph)


def test_a_mask_that_is_written_through_lies_on_its_axes() -> None:
    def program(x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        y = F.linear(x, a)
        y = y.index_put((x.abs().sum(-1) > 2,), b)
        return F.linear(y, c)

    graph = read(program, (6, 3), (6,), (5, 6), x=(2, 4, 3))
    assert spaces(graph, "p0", 0) == spaces(graph, "p1", 0) == spaces(graph, "p2", 1)
    assert law(graph) == 1


def test_values_that_a_mask_takes_in_order_pin_what_it_lies_on() -> None:
    graph = read(
        lambda x, a: F.linear(x, a).index_put((torch.ones(2, 6, dtype=torch.bool),), x.new_zeros(12)), (6, 3), x=(2, 3)
    )
    assert "values are taken in the order of a mask" in (spaces(graph, "p0", 0)[0].pin_reason or "")


def test_numbers_from_the_data_make_a_table_produce() -> None:
    graph = read(lambda x, a, b: F.linear(a[x.abs().long() % 7], b), (7, 6), (5, 6), x=(2, 4))
    assert graph.roles["p0", 1] == {Role.PRODUCE}
    assert holding(graph, "p0", 1).can_widen
    assert law(graph) == 1


def test_a_bag_of_embeddings_produces_its_width() -> None:
    model = nn.Sequential(nn.EmbeddingBag(9, 6), nn.Linear(6, 5)).double()
    graph = trace(model, torch.tensor([[1, 2], [3, 3]]))
    assert graph.group("0.weight[1]").can_widen
    assert law(graph) == 1
