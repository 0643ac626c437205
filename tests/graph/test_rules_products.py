"""Matrix products, convolutions, attention and recurrent layers: what is summed away, produced, and tied."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graph.programs import holding, law, read, spaces
from neuroexapt.graph import trace
from neuroexapt.graph.values import Role


@pytest.mark.parametrize(
    ("function", "shapes", "free"),
    [
        (lambda x, a, b: torch.einsum("nc,cd->nd", F.linear(x, a), b), ((6, 4), (6, 5)), 1),
        (lambda x, a, b: torch.einsum("nc,dce->nde", F.linear(x, a), b).sum(1), ((6, 4), (3, 6, 5)), 2),
        (lambda x, a, v, b: torch.addmv(v, F.linear(x, a), b), ((6, 4), (2,), (6,)), 1),
        (lambda x, a, b: torch.outer(F.linear(x, a)[0], b), ((6, 4), (3,)), 0),
        (lambda x, a, b, c: torch.addr(c, F.linear(x, a)[0], b), ((6, 4), (3,), (6, 3)), 0),
        (lambda x, a, b: torch.dot(F.linear(x, a)[0], b)[None], ((6, 4), (6,)), 1),
        (lambda x, a, b, c: torch.addbmm(c, F.linear(x, a)[None].expand(3, 2, 6), b), ((6, 4), (3, 6, 5), (2, 5)), 2),
        (lambda x, a, b, c: torch.baddbmm(c, F.linear(x, a)[None], b)[0], ((6, 4), (1, 6, 5), (1, 2, 5)), 1),
        (lambda x, a, b, w: F.bilinear(F.linear(x, a), F.linear(x, b), w), ((6, 4), (7, 4), (5, 6, 7)), 2),
        (lambda x, a, b, w: F.bilinear(F.linear(x, a), F.linear(x, b), w).sum(1), ((6, 4), (7, 4), (5, 6, 7)), 3),
    ],
)
def test_products_of_all_forms_tie_what_they_sum_over(
    function: Callable[..., Tensor], shapes: tuple[tuple[int, ...], ...], free: int
) -> None:
    graph = read(function, *shapes, x=(2, 4))
    assert not graph.unknown_operators
    assert law(graph) == free


def test_the_experts_of_a_mixture_are_numbered_and_their_widths_are_free() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Parameter(torch.randn(3, 4, 8)), nn.Parameter(torch.randn(3, 8, 4))

        def forward(self, x: Tensor) -> Tensor:
            ends = torch.tensor([2, 5, 6], dtype=torch.int32)
            return torch._grouped_mm(torch.relu(torch._grouped_mm(x, self.up, offs=ends)), self.down, offs=ends)

    graph = trace(Experts(), torch.randn(6, 4))
    assert not graph.unknown_operators
    assert "experts are addressed by number" in (spaces(graph, "up", 0)[0].pin_reason or "")
    assert holding(graph, "up", 2).producers == holding(graph, "down", 1).consumers == ("",)
    assert graph.resizing({spaces(graph, "up", 2)[0]: 12}).refusal == ""
    assert "strides should be a multiple of 16 bytes" in graph.resizing({spaces(graph, "up", 2)[0]: 9}).refusal


def test_a_grouped_transposed_convolution_factors_both_axes() -> None:
    graph = read(
        lambda x, a, b, c: F.conv2d(F.conv_transpose2d(F.conv2d(x, a), b, groups=2), c),
        (4, 3, 1, 1), (4, 3, 2, 2), (5, 6, 1, 1),
    )  # fmt: skip
    count, unit = spaces(graph, "p0", 0)
    assert spaces(graph, "p1", 0) == [count, unit]
    assert spaces(graph, "p2", 1) == [count, spaces(graph, "p1", 1)[0]]
    assert law(graph) == 3


@pytest.mark.parametrize(
    ("function", "shapes", "x", "free"),
    [
        (lambda x, a, b: F.conv1d(F.conv1d(x, a, dilation=2), b), ((6, 3, 3), (5, 6, 1)), (2, 3, 8), 1),
        (lambda x, a, b: F.conv1d(F.conv1d(x, a), b), ((6, 3, 3), (5, 6, 1)), (3, 8), 1),
        (lambda x, a, b: F.conv3d(F.conv3d(x, a), b), ((6, 3, 1, 1, 1), (5, 6, 2, 2, 2)), (2, 3, 3, 3, 3), 1),
        (
            lambda x, a, b, c: F.conv1d(F.conv1d(F.conv1d(x, a), b, groups=4), c),
            ((4, 3, 1), (8, 1, 3), (5, 8, 1)), (2, 3, 8), 2,
        ),
        (
            lambda x, a, b, c: F.conv1d(F.conv_transpose1d(F.conv1d(x, a), b, groups=4), c),
            ((4, 3, 1), (4, 1, 3), (5, 4, 1)), (2, 3, 8), 1,
        ),
    ],
)  # fmt: skip
def test_convolutions_of_all_forms_keep_their_channels(
    function: Callable[..., Tensor], shapes: tuple[tuple[int, ...], ...], x: tuple[int, ...], free: int
) -> None:
    graph = read(function, *shapes, x=x)
    assert not graph.unknown_operators
    assert law(graph) == free


def test_a_kernel_of_one_passes_positions_through_and_a_wider_one_pins_them() -> None:
    """A convolution over the classes of a token: its positions are the model's channels."""
    for kernel, pinned in ((1, False), (3, True)):
        graph = read(
            lambda x, a, b, c: F.linear(F.conv1d(F.linear(x, a), b, padding="same"), c),
            (6, 4), (3, 3, kernel), (5, 6), x=(2, 3, 4),
        )  # fmt: skip
        assert bool(spaces(graph, "p0", 0)[0].pin_reason) is pinned
        assert (spaces(graph, "p0", 0) == spaces(graph, "p2", 1)) is not pinned
        law(graph)


@pytest.mark.parametrize("mask", [False, True])
def test_shared_heads_are_read_by_several_query_heads(mask: bool) -> None:
    def function(x: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, bias: Tensor) -> Tensor:
        queries, keys, values = (F.linear(x, w).unflatten(-1, (-1, 3)).transpose(1, 2) for w in (q, k, v))
        y = F.scaled_dot_product_attention(queries, keys, values, bias if mask else None, enable_gqa=True)
        return F.linear(y.transpose(1, 2).flatten(2), o)

    graph = read(function, (12, 4), (6, 4), (6, 4), (5, 12), (4, 5, 5), x=(2, 5, 4))
    shared, repeated, width = spaces(graph, "p0", 0)
    assert (shared.size, repeated.size, width.size) == (2, 2, 3)
    assert spaces(graph, "p1", 0) == [shared, width]
    assert spaces(graph, "p3", 1) == [shared, repeated, spaces(graph, "p2", 0)[1]]
    if mask:
        assert spaces(graph, "p5", 0) == [shared, repeated] if "p5" in graph.parameters else True
    assert law(graph) == 4


def test_tokens_that_look_back_only_have_an_order() -> None:
    graph = read(
        lambda x, p: F.scaled_dot_product_attention(x + p, x + p, x + p, is_causal=True).sum((1, 2, 3)),
        (1, 1, 5, 4), x=(2, 1, 5, 4),
    )  # fmt: skip
    assert spaces(graph, "p0", 2)[0].pin_reason


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: object) -> None:
        super().__init__()
        self.enter = nn.Linear(4, 5)
        self.layers = kind(5, 6, num_layers=2, batch_first=True, **options)
        self.head = nn.Linear(12 if self.layers.bidirectional else 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.enter(x))[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"bias": False}])
def test_the_hidden_state_of_a_recurrent_layer_is_one_axis(
    kind: type[nn.RNNBase], options: dict[str, object], dtype: torch.dtype
) -> None:
    graph = trace(Recurrent(kind, **options).to(dtype), torch.randn(2, 3, 4, dtype=dtype))
    assert not graph.unknown_operators
    (hidden,) = set(spaces(graph, "layers.weight_hh_l0", 1))
    for name in ("layers.weight_ih_l0", "layers.weight_hh_l0", "layers.weight_ih_l1", "layers.weight_hh_l1"):
        assert set(spaces(graph, name, 0)) == {hidden}
    for name in ("layers.weight_ih_l1", "head.weight"):
        assert set(spaces(graph, name, 1)) == {hidden}
    roles = {m.path: m.roles for m in holding(graph, "layers.weight_hh_l0", 1).members if m.dim == 1}
    assert roles["layers.weight_hh_l1"] == roles["head.weight"] == {Role.CONSUME}
    if dtype is torch.float64:
        assert law(graph) == 2  # what enters, and the hidden state


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_the_state_of_a_recurrent_cell_is_one_axis(kind: type[nn.RNNCellBase]) -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = kind(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            state = None
            for step in x.unbind(1):
                state = self.cell(step, state)
            return self.head(state[0] if isinstance(state, tuple) else state)

    graph = trace(Steps().double(), torch.randn(2, 3, 4).double())
    assert not graph.unknown_operators
    assert set(spaces(graph, "cell.weight_ih", 0)) == set(spaces(graph, "head.weight", 1))
    assert law(graph) == 1


def test_groups_over_parts_that_do_not_divide_pin_the_channels_and_nothing_else() -> None:
    def function(x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        y = torch.cat([F.conv1d(x, a), F.conv1d(x, b)], 1)
        return F.conv1d(torch.relu(F.conv1d(y, c, groups=2)), d)

    graph = read(function, (4, 3, 1), (8, 3, 1), (10, 6, 1), (5, 10, 1), x=(2, 3, 4))
    assert "12 indices, put together from parts, are divided by 2" in (spaces(graph, "p0", 0)[0].pin_reason or "")
    assert not spaces(graph, "p2", 0)[1].pin_reason
    assert not graph.unknown_operators
    law(graph)
