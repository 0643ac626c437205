"""One small computation for every family of operators, and for every rule with a trap."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graph.programs import holding, read, spaces
from neuroexapt.graph import trace
from neuroexapt.graph.rules import RULES
from neuroexapt.graph.space import Space
from neuroexapt.graph.values import Role


def test_a_matrix_product_ties_what_it_sums_over_and_gives_the_roles() -> None:
    graph = read(lambda x, a, b, c: F.linear(F.linear(x, a, b), c), (6, 4), (6,), (5, 6), x=(2, 7, 4))
    group = holding(graph, "p0", 0)
    assert [(m.path, m.dim, m.roles) for m in group.members] == [
        ("p0", 0, {Role.PRODUCE}),
        ("p1", 0, {Role.SHIFT}),
        ("p2", 1, {Role.CONSUME}),
    ]
    assert group.can_widen


def test_batched_products_and_vectors_are_understood() -> None:
    graph = read(lambda x, a, b: torch.baddbmm(a, x, x.transpose(1, 2)) @ b, (1, 3, 3), (3, 5), x=(2, 3, 4))
    assert not graph.unknown_operators
    graph = read(lambda x, a, v: torch.mv(F.linear(x, a), v), (6, 4), (6,), x=(2, 4))
    assert holding(graph, "p0", 0).consumers == ("",)


def test_a_dot_product_sums_its_only_axis_away() -> None:
    graph = read(lambda x, a, b: x * torch.dot(a, b), (4,), (4,))
    assert spaces(graph, "p0", 0) == spaces(graph, "p1", 0)
    assert not graph.unknown_operators


def test_a_convolution_ties_channels_and_pins_its_kernel() -> None:
    graph = read(lambda x, a, b: F.conv2d(F.conv2d(x, a), b), (6, 3, 3, 3), (5, 6, 1, 1))
    assert spaces(graph, "p0", 0) == spaces(graph, "p1", 1)
    assert spaces(graph, "p0", 2)[0].pin_reason == "aten.convolution in the model: the kernel's extent"


def test_a_grouped_convolution_factors_both_axes() -> None:
    graph = read(
        lambda x, a, b, c: F.conv2d(F.conv2d(F.conv2d(x, a), b, groups=2), c), (4, 3, 1, 1), (6, 2, 3, 3), (5, 6, 1, 1)
    )
    (groups_in, unit_in), (groups_out, unit_out) = spaces(graph, "p0", 0), spaces(graph, "p1", 0)
    assert (groups_in, unit_in) == (groups_out, spaces(graph, "p1", 1)[0])
    assert spaces(graph, "p2", 1) == [groups_out, unit_out]


def test_a_depthwise_convolution_passes_channels_through_and_reads_none() -> None:
    graph = read(
        lambda x, a, b, c: F.conv2d(F.conv2d(F.conv2d(x, a), b, groups=4), c), (4, 3, 1, 1), (4, 1, 3, 3), (5, 4, 1, 1)
    )
    assert spaces(graph, "p0", 0) == spaces(graph, "p1", 0) == spaces(graph, "p2", 1)
    assert [m.path for m in holding(graph, "p0", 0).members if Role.CONSUME in m.roles] == ["p2"]


def test_a_transposed_convolution_produces_its_second_dimension() -> None:
    graph = read(lambda x, a, b: F.conv2d(F.conv_transpose2d(x, a), b), (3, 6, 2, 2), (5, 6, 1, 1))
    assert holding(graph, "p0", 1).can_widen
    assert spaces(graph, "p0", 1) == spaces(graph, "p1", 1)


def test_the_halves_of_a_chunk_that_multiply_are_one_axis() -> None:
    def swiglu(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        gate, value = F.linear(x, a).chunk(2, -1)
        return F.linear(F.silu(gate) * value, b)

    for function in (swiglu, lambda x, a, b: F.linear(F.glu(F.linear(x, a), -1), b)):
        graph = read(function, (12, 4), (5, 6), x=(2, 4))
        first, second = spaces(graph, "p0", 0)
        assert first is second is spaces(graph, "p1", 1)[0]
        assert holding(graph, "p0", 0).members[0].slices == (slice(0, 6), slice(6, 12))
        assert holding(graph, "p0", 0).can_widen


def test_a_slice_cuts_an_axis_and_its_literal_offset_forbids_growth_before_it() -> None:
    graph = read(lambda x, a, b: F.linear(F.linear(x, a)[:, 2:5], b), (7, 4), (5, 3), x=(2, 4))
    assert [s.size for s in spaces(graph, "p0", 0)] == [2, 3, 2]
    assert "a size is written as 2 at graph/test_rules.py" in graph.resizing({spaces(graph, "p0", 0)[0]: 4}).refusal
    assert "a size is written as" in graph.resizing({spaces(graph, "p0", 0)[1]: 4}).refusal
    assert graph.resizing({spaces(graph, "p0", 0)[2]: 4}).refusal == ""


def test_a_slice_that_takes_everything_by_a_literal_forbids_growth() -> None:
    graph = read(lambda x, a, b: F.linear(F.linear(x, a)[:, 0:6].sum(0, keepdim=True), b), (6, 4), (5, 6), x=(2, 4))
    assert not holding(graph, "p0", 0).can_widen


def test_a_negative_start_is_a_position_too() -> None:
    graph = read(lambda x, a, b: F.linear(F.linear(x, a)[:, -3:], b), (7, 4), (5, 3), x=(2, 4))
    assert [s.size for s in spaces(graph, "p0", 0)] == [4, 3]
    assert spaces(graph, "p1", 1) == spaces(graph, "p0", 0)[1:]


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda y: y[:, ::4], "strided or empty slice"),
        (lambda y: y[:, 0:1] * y[:, 3], "index 3 is picked"),
        (lambda y: sum(y.unbind(1)), "unbound into single indices"),
        (lambda y: y.flip(1), "the order of its indices matters"),
        (lambda y: y.cumsum(1), "the order of its indices matters"),
        (lambda y: torch.roll(y, 1), "the order of its indices matters"),
        (lambda y: torch.tril(y), "the order of its indices matters"),
        (lambda y: y[:, [2, 0, 1]], "rows are addressed by number"),
        (lambda y: y.sort(1).values, "the order of its indices matters"),
        (lambda y: y.topk(2, 1).values, "the order of its indices matters"),
        (lambda y: y.argmax(1).double(), "the number of an index is its result"),
        (lambda y: y.max(1).values, "the number of an index is its result"),
        (lambda y: y.unfold(1, 3, 1), "windows that overlap"),
        (lambda y: torch.fft.rfft(y, dim=1).abs(), "positions become frequencies"),
        (lambda y: torch.nn.functional.cross_entropy(y, torch.zeros(2, dtype=torch.long)), "classes"),
        (lambda y: torch.cdist(y, y), "no rule for this operator"),
        (lambda y: y.masked_scatter(y > 0, y), "no rule for this operator"),
        (lambda y: y.reshape(-1, 4), "cuts across an axis"),
    ],
)
def test_what_depends_on_the_order_of_units_pins_them(function: Callable[[Tensor], Tensor], why: str) -> None:
    graph = read(lambda x, a: function(F.linear(x, a)), (6, 4), x=(2, 4))
    assert all(why in (space.pin_reason or "") for space in spaces(graph, "p0", 0))


def test_expand_repeats_by_a_size_in_the_code_and_keeps_the_other_axes() -> None:
    graph = read(
        lambda x, a, b: F.linear(a.expand(x.shape[0], 3, 6) + F.linear(x, b), torch.ones(2, 6)), (1, 3, 6), (6, 4),
        x=(2, 3, 4),
    )  # fmt: skip
    assert spaces(graph, "p0", 2) == spaces(graph, "p1", 0)


def test_an_in_place_addition_to_a_slice_ties_the_slice() -> None:
    def function(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        y = F.linear(x, a)
        y[:, 2:5] += F.linear(x, b)
        return torch.relu(y).mean(1)

    graph = read(function, (7, 4), (3, 4), x=(2, 4))
    assert spaces(graph, "p1", 0) == [spaces(graph, "p0", 0)[1]]


def test_cat_of_three_is_a_sum_and_flatten_a_product() -> None:
    graph = read(
        lambda x, a, b, c, d: F.linear(torch.cat([F.conv2d(x, w) for w in (a, b, c)], 1).flatten(1), d),
        (2, 3, 1, 1), (4, 3, 1, 1), (3, 3, 1, 1), (5, 9 * 4), x=(2, 3, 2, 2),
    )  # fmt: skip
    whole = graph.parameters["p3"].dims[1]
    assert repr(whole) == "((2+4+3)x2!x2!)"
    assert [spaces(graph, f"p{i}", 0)[0] for i in range(3)] == [
        s for s in spaces(graph, "p3", 1) if s.size != 2 or not s.pin_reason
    ]
    assert holding(graph, "p1", 0).members[-1].slices == (slice(0, 36),)
    assert all(holding(graph, f"p{i}", 0).can_widen for i in range(3))


def test_stack_counts_its_tensors() -> None:
    graph = read(lambda x, a, b: torch.stack([F.linear(x, a), F.linear(x, b)]).sum(0), (6, 4), (6, 4), x=(2, 4))
    assert spaces(graph, "p0", 0) == spaces(graph, "p1", 0)


@pytest.mark.parametrize(
    ("function", "reader"),
    [
        (lambda y: torch.softmax(y, -1), "aten._softmax in the model"),
        (lambda y: F.layer_norm(y, (6,)), "aten.native_layer_norm in the model"),
        (lambda y: y.mean(-1, keepdim=True) + y, "aten.mean in the model"),
        (lambda y: F.normalize(y, dim=-1), "aten.linalg_vector_norm in the model"),
        (lambda y: y.amax(-1, keepdim=True) * y, "aten.amax in the model"),
        (lambda y: y @ y.transpose(-1, -2), "aten.mm of two activations in the model"),
    ],
)
def test_what_reads_across_an_axis_is_named(function: Callable[[Tensor], Tensor], reader: str) -> None:
    graph = read(lambda x, a: function(F.linear(x, a)).sum(0), (6, 4), x=(2, 4))
    assert reader in {str(r) for r in spaces(graph, "p0", 0)[0].readers}


def test_group_norm_reads_across_the_units_of_a_group_and_keeps_groups_apart() -> None:
    graph = read(lambda x, a, g: F.group_norm(F.conv2d(x, a), 2, g), (6, 3, 1, 1), (6,))
    count, unit = spaces(graph, "p0", 0)
    assert count.pin_reason == unit.pin_reason == "an axis of the model's output"
    assert not count.readers
    assert [str(r) for r in unit.readers] == ["aten.native_group_norm in the model"]


def test_a_number_of_groups_that_is_written_in_the_code_is_refused() -> None:
    graph = read(lambda x, a, g, b: F.conv2d(F.group_norm(F.conv2d(x, a), 2, g), b), (8, 3, 1, 1), (8,), (5, 8, 1, 1))
    count, unit = spaces(graph, "p0", 0)
    assert "a size is written as 2 at graph/test_rules.py" in graph.resizing({count: 4}).refusal
    assert graph.resizing({unit: 8}).refusal == ""


def test_batch_norm_keeps_channels_apart() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1))
    group = trace(model, torch.randn(2, 3, 4, 4)).group("0")
    assert group.can_widen
    roles = {m.path: next(iter(m.roles)) for m in group.members if m.path.startswith("1.")}
    assert roles == {
        "1.weight": Role.NORM_GAIN, "1.bias": Role.SHIFT, "1.running_mean": Role.MEAN, "1.running_var": Role.VARIANCE,
    }  # fmt: skip


def test_attention_reads_across_queries_and_keys_but_not_across_values() -> None:
    def function(x: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor) -> Tensor:
        parts = [F.linear(x, w).view(2, 5, 2, -1).transpose(1, 2) for w in (q, k, v)]
        return F.linear(F.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(2, 5, -1), o)

    graph = read(function, (6, 4), (6, 4), (6, 4), (4, 6), x=(2, 5, 4))
    assert spaces(graph, "p0", 0)[1] is spaces(graph, "p1", 0)[1]
    assert any("scores and their scale" in r for r in holding(graph, "p0", 0, 1).readers)
    assert not holding(graph, "p2", 0, 1).readers
    assert spaces(graph, "p2", 0) == spaces(graph, "p3", 1)


def test_a_tied_embedding_is_one_axis_with_pinned_rows() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(9, 6), nn.Linear(6, 9, bias=False)
            self.head.weight = self.table.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.table(x)))

    graph = trace(Tied(), torch.tensor([[1, 2]]))
    assert set(graph.parameters) == {"table.weight"}
    assert "rows are addressed by the input" in graph.explain("table.weight", 0)
    assert graph.group("table.weight[1]").members[0].roles == {Role.PRODUCE, Role.CONSUME}


def test_pooling_passes_channels_and_pins_positions() -> None:
    graph = read(
        lambda x, a, b: F.conv2d(F.max_pool2d(F.interpolate(F.conv2d(x, a), scale_factor=2), 2), b),
        (6, 3, 1, 1),
        (5, 6, 1, 1),
    )
    assert holding(graph, "p0", 0).can_widen


def test_an_unknown_operator_pins_what_it_touches_and_names_itself() -> None:
    graph = read(lambda x, a: torch.linalg.inv(F.linear(x, a)), (4, 4), x=(4, 4))
    assert graph.unknown_operators == {"aten.linalg_inv_ex": "no rule for this operator"}
    assert holding(graph, "p0", 0).reason == "aten.linalg_inv_ex in the model: no rule for this operator"


@pytest.fixture
def foreign() -> Iterator[torch.library.Library]:
    library = torch.library.Library("graph_rules_test", "FRAGMENT")
    yield library
    library._destroy()


def test_an_operator_from_another_library_pins_what_it_touches(foreign: torch.library.Library) -> None:
    foreign.define("double(Tensor x) -> Tensor")
    foreign.impl("double", lambda x: x + x, "CompositeExplicitAutograd")
    graph = read(lambda x, a: torch.ops.graph_rules_test.double(F.linear(x, a)).sum(-1), (6, 4), x=(2, 4))
    assert spaces(graph, "p0", 0)[0].pin_reason == "graph_rules_test.double in the model: no rule for this operator"
    assert list(graph.unknown_operators) == ["graph_rules_test.double"]


def write_into(x: Tensor, y: Tensor) -> None:
    x.add_(y)


def test_an_operator_that_only_writes_pins_what_it_touches(foreign: torch.library.Library) -> None:
    foreign.define("write(Tensor(a!) x, Tensor y) -> ()")
    foreign.impl("write", write_into, "CompositeExplicitAutograd")

    def function(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        y = F.linear(x, a).detach()
        torch.ops.graph_rules_test.write(y, F.linear(x, b).detach())
        return y.sum(-1)

    graph = read(function, (6, 4), (6, 4), x=(2, 4))
    assert all("no rule" in (spaces(graph, name, 0)[0].pin_reason or "") for name in ("p0", "p1"))


def test_a_list_of_tensors_that_is_written_to_is_pinned() -> None:
    def function(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        y = F.linear(x, a)
        torch._foreach_add_([y], [F.linear(x, b)])
        return y.sum(-1)

    graph = read(function, (6, 4), (6, 4), x=(2, 4))
    assert all("_foreach_add" in (spaces(graph, name, 0)[0].pin_reason or "") for name in ("p0", "p1"))


def test_what_is_written_to_a_view_has_the_axes_of_the_tensor_behind_it() -> None:
    def function(x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        y = x.new_zeros(2, 8)
        torch.add(F.linear(x, a).detach(), F.linear(x, b).detach(), out=y[:, :3])
        y[:, 3:] = 1
        return F.linear(y, c)

    graph = read(function, (3, 4), (3, 4), (5, 8), x=(2, 4))
    assert spaces(graph, "p2", 1)[0] is spaces(graph, "p0", 0)[0] is spaces(graph, "p1", 0)[0]


def test_a_view_in_place_is_read_with_the_shape_that_it_had() -> None:
    graph = read(lambda x, a, b: F.linear(x, a).unsqueeze_(1).transpose_(0, 2).squeeze_() * b, (2, 4), (2, 1), x=(2, 4))
    assert spaces(graph, "p0", 0) == spaces(graph, "p1", 0)
    assert not graph.unknown_operators


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient * 2


def test_a_custom_autograd_function_is_read_by_the_operators_inside_it() -> None:
    graph = read(lambda x, a, b: F.linear(Doubled.apply(F.linear(x, a)), b), (6, 4), (5, 6), x=(2, 4))
    assert spaces(graph, "p0", 0) == spaces(graph, "p1", 1)
    assert holding(graph, "p0", 0).can_widen


def test_a_parametric_relu_aligns_its_weight_with_the_channels() -> None:
    graph = read(lambda x, a, w: F.prelu(F.conv2d(x, a), w).sum(0), (8, 3, 1, 1), (8,), x=(2, 3, 8, 8))
    assert spaces(graph, "p0", 0) == spaces(graph, "p1", 0)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda call: [Space(1), Space(2)], r"its rule gives sizes \[1, 2\] for \[2, 6\]"),
        (lambda call: [(), (), ()], "its rule gives 3 outputs for 1"),
        (lambda call: call["nothing"], "its rule failed with KeyError: 'nothing'"),
    ],
)
def test_a_rule_that_is_wrong_fails_closed(wrong: object, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "tanh", wrong)
    graph = read(lambda x, a, b: F.linear(torch.tanh(F.linear(x, a)), b), (6, 4), (5, 6), x=(2, 4))
    for name, dim in (("p0", 0), ("p1", 1)):
        assert re.search(why, spaces(graph, name, dim)[0].pin_reason or "")


def test_arithmetic_on_a_computed_weight_gives_its_parameters_their_roles() -> None:
    graph = read(lambda x, a, b, c: F.linear(F.linear(x, a @ b), c), (6, 3), (3, 4), (5, 6), x=(2, 4))
    assert Role.PRODUCE in graph.roles["p0", 0]
    assert holding(graph, "p0", 1).can_widen
    graph = read(lambda x, w, a, b: F.linear(F.linear(x, w), a @ b), (4, 5), (6, 3), (3, 4), x=(2, 5))
    assert "with a computed weight" in repr(spaces(graph, "p2", 1)[0].readers)
