"""Reshapes, slices, strides, repetitions and constants: what keeps an axis, what factors it, what pins it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graph.programs import holding, law, read, spaces


def between(change: Callable[[Tensor], Tensor], width: int, out: int, x: tuple[int, ...] = (2, 4)):
    """The graph of two linear layers with something between them."""
    return read(lambda x, a, b: F.linear(change(F.linear(x, a)), b), (width, 4), (5, out), x=x)


@pytest.mark.parametrize(
    ("change", "width", "out"),
    [
        (lambda y: y.contiguous().as_strided((2, 6), (6, 1)), 6, 6),
        (lambda y: y.as_strided((6, 2), (1, 6)).t(), 6, 6),
        (lambda y: y[:, None].expand(2, 3, 6).flatten(1), 6, 18),
        (lambda y: y.repeat(1, 3), 6, 18),
        (lambda y: y.tile(3), 6, 18),
        (lambda y: y.repeat_interleave(3, 1), 6, 18),
        (lambda y: y[:, 0::2], 6, 3),
        (lambda y: y[:, 1::2], 6, 3),
        (lambda y: torch.stack([-y[:, 1::2], y[:, 0::2]], -1).flatten(1), 6, 6),
        (lambda y: y.unflatten(1, (2, 3)).movedim(1, 2).flatten(1), 6, 6),
        (lambda y: y.view(2, 3, 2).roll(1, 0).view(2, 6), 6, 6),
        (lambda y: y.unfold(1, 2, 2).sum(-1), 6, 3),
        (lambda y: F.pad(y, (1, 2)), 6, 9),
        (lambda y: F.pad(y, (-1, 2)), 6, 7),
        (lambda y: torch.cat([y, y.new_zeros(2, 3)], 1), 6, 9),
        (lambda y: torch.cat([y, y.new_full((2, 3), 0.5), torch.ones(2, 1).double()], 1), 6, 10),
        (lambda y: y + torch.ones(2, 6).double(), 6, 6),
        (lambda y: torch.view_as_real(torch.view_as_complex(y.view(2, 3, 2)) * 1j).flatten(1), 6, 6),
        (lambda y: y.slice_scatter(y[:, :2] * 2, 1, 2, 4), 6, 6),
        (lambda y: torch.tril(y[..., None, None].expand(2, 6, 3, 3)).sum((2, 3)), 6, 6),
    ],
)
def test_a_rearrangement_leaves_an_axis_free(change: Callable[[Tensor], Tensor], width: int, out: int) -> None:
    graph = between(change, width, out)
    assert not graph.unknown_operators
    assert law(graph) >= 1
    assert any(space.pin_reason is None for space in spaces(graph, "p0", 0))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda y: y.as_strided((2, 3), (6, 2)).repeat(1, 2), "strides that are not those of a permutation"),
        (lambda y: y.as_strided((2,), (6,))[:, None].expand(2, 6), "strides that leave a part of the tensor out"),
        (lambda y: y.as_strided((1, 6), (6, 1), 6), "strides that leave a part of the tensor out"),
        (lambda y: y.view(3, 4)[:2].repeat(1, 2)[:, :6], "cuts across an axis"),
        (lambda y: torch.diagonal(y[..., None].expand(2, 6, 6), dim1=1, dim2=2), "a diagonal is taken"),
        (lambda y: y.view(2, 2, 3).rot90(1, (1, 2)).flatten(1), "the order of its indices matters"),
        (lambda y: y * torch.arange(6), "size written in the code (aten.arange)"),
        (lambda y: y @ torch.eye(6).double(), "size written in the code (aten.eye)"),
    ],
)
def test_what_states_an_order_pins(change: Callable[[Tensor], Tensor], why: str) -> None:
    graph = between(change, 6, 6)
    assert all(why in (space.pin_reason or "") for space in spaces(graph, "p0", 0))


def test_a_view_that_cuts_across_positions_leaves_channels_alone() -> None:
    """Windows of 3 x 2 in one place and of 2 x 3 in another: positions are pinned anyway."""

    def function(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        y = F.conv2d(x, a)
        y = y.view(2, 7, 2, 3, 6).transpose(2, 3).reshape(2, 7, 6, 6)
        y = y.view(2, 7, 3, 2, 6).transpose(2, 3).reshape(2, 7, 6, 6)
        return F.conv2d(y, b)

    graph = read(function, (7, 3, 1, 1), (5, 7, 1, 1), x=(2, 3, 6, 6))
    assert holding(graph, "p0", 0).pin_reason == ""
    assert law(graph) == 1


def test_only_the_factors_between_common_boundaries_are_pinned() -> None:
    graph = read(lambda x, a: F.linear(x, a).view(2, 2, 3, 5).view(2, 3, 2, 5).sum((0, 1, 2)), (30, 4), x=(2, 4))
    assert [bool(s.pin_reason and "cuts across" in s.pin_reason) for s in spaces(graph, "p0", 0)] == [True, True, False]


def test_zeros_may_stand_in_any_order_but_not_be_numbered() -> None:
    def scores(x: Tensor, a: Tensor) -> Tensor:
        mask = torch.zeros(6).double()
        mask[2] = 1
        return (F.linear(x, a) * mask).sum(1)

    graph = read(scores, (6, 4), x=(2, 4))
    assert spaces(graph, "p0", 0)[0].pin_reason == "aten.select in the model: index 2 is picked"


def test_a_size_in_the_code_of_a_constant_is_found_by_the_rehearsal() -> None:
    graph = between(lambda y: y + torch.zeros(6).double(), 6, 6)
    assert not holding(graph, "p0", 0).pin_reason
    assert holding(graph, "p0", 0).reason


def test_a_shuffle_of_a_sum_keeps_its_units() -> None:
    """Two branches side by side, channels interleaved, halved again: the units of both are the same axis."""

    def function(x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        y = torch.cat([F.conv2d(x, a), F.conv2d(x, b)], 1)
        y = y.view(2, 2, 8, 4, 4).transpose(1, 2).reshape(2, 16, 4, 4)
        left, right = y.chunk(2, 1)
        return F.conv2d(left * right, c)

    graph = read(function, (8, 3, 1, 1), (8, 3, 1, 1), (5, 8, 1, 1), x=(2, 3, 4, 4))
    assert spaces(graph, "p0", 0) == spaces(graph, "p1", 0)
    assert law(graph) == 1


def test_windows_of_several_sizes_over_heads_keep_their_common_width() -> None:
    """Depthwise kernels for the first two and the last three heads (Xu et al. 2021, CoaT)."""

    def function(x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        y = F.conv2d(x, a)
        first, last = y.split([14, 21], 1)
        y = torch.cat([F.conv2d(first, b, groups=14), F.conv2d(last, c, groups=21)], 1) * y
        return F.conv2d(y.view(2, 5, 7, 4, 4).sum(1), d)

    graph = read(function, (35, 3, 1, 1), (14, 1, 1, 1), (21, 1, 1, 1), (5, 7, 1, 1), x=(2, 3, 4, 4))
    assert [s.size for s in spaces(graph, "p0", 0)] == [2, 7, 3, 7]
    assert spaces(graph, "p0", 0)[1] is spaces(graph, "p0", 0)[3] is spaces(graph, "p3", 1)[0]
    assert law(graph) == 3
