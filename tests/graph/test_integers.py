"""Integers in users' code: which attribute a size came from, what follows it, and what is refused."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroexapt.errors import TraceError
from neuroexapt.graph import Resizing, Space, resolve, trace
from neuroexapt.graph.attributes import attributes_set
from neuroexapt.graph.space import factors

BATCH, TOKENS, WIDTH, HEADS, HEAD_DIM = 2, 5, 12, 3, 4


def tokens() -> Tensor:
    return torch.randn(BATCH, TOKENS, 7, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """Attention between an input and an output layer; the split into heads is given."""

    def __init__(self, split: Callable[[Attention, Tensor], Tensor], join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.enter, self.qkv, self.proj = nn.Linear(7, WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 2)
        self.num_heads, self.head_dim, self.scale = HEADS, HEAD_DIM, HEAD_DIM**-0.5
        self.split, self.join = [split], [join]

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        q, k, v = self.split[0](self, x).permute(2, 0, 3, 1, 4)
        scores = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1)
        y = (scores @ v).transpose(1, 2)
        return self.head(x + self.proj(self.join[0](x, y)))


def by_attributes(self: Attention, x: Tensor) -> Tensor:
    return self.qkv(x).view(x.shape[0], x.shape[1], 3, self.num_heads, self.head_dim)


def by_division(self: Attention, x: Tensor) -> Tensor:
    B, N, C = x.shape
    return self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads)


def by_literals(self: Attention, x: Tensor) -> Tensor:
    return self.qkv(x).view(x.shape[0], x.shape[1], 3, 3, -1)


def flat(x: Tensor, y: Tensor) -> Tensor:
    return y.flatten(2)


def as_wide_as_the_input(x: Tensor, y: Tensor) -> Tensor:
    return y.reshape(x.shape[0], x.shape[1], x.shape[2])


def asked(model: nn.Module, path: str, dim: int, factor: int, to: int) -> tuple[Resizing, list[Space]]:
    """Resizes one factor of a parameter's dimension."""
    graph = trace(model, tokens())
    inside = factors([graph.parameters[path].dims[dim]])
    return graph.resizing({inside[factor]: to}), inside


def changes(resizing: Resizing) -> dict[str, int]:
    """All integer attributes that follow, without those of torch's own modules."""
    found = {".".join(map(str, (e.module, e.name, *e.keys))).lstrip("."): e.value for e in resizing.attributes}
    return {name: value for name, value in found.items() if not name.endswith("_features")}


def test_a_head_count_in_an_attribute_follows_its_heads() -> None:
    resizing, (_, heads, head_dim) = asked(Attention(by_attributes, flat), "qkv.weight", 0, 1, 5)
    assert (resizing.refusal, changes(resizing), resizing.scales) == ("", {"num_heads": 5}, ())
    assert dict(resizing.sizes) == {heads: 5}
    assert head_dim not in resizing.sizes


def test_a_head_size_in_an_attribute_follows_and_a_scale_made_at_construction_stays() -> None:
    resizing, (_, _, head_dim) = asked(Attention(by_attributes, flat), "qkv.weight", 0, 2, 6)
    assert (resizing.refusal, changes(resizing), resizing.scales) == ("", {"head_dim": 6}, ())
    assert dict(resizing.sizes) == {head_dim: 6}


def test_heads_that_divide_the_width_grow_with_the_width() -> None:
    model = Attention(by_division, flat)
    resizing, _ = asked(model, "qkv.weight", 0, 1, 6)
    assert (resizing.refusal, changes(resizing)) == ("", {"num_heads": 6})
    assert sorted(resizing.sizes.values()) == [6, 24]
    resizing, _ = asked(model, "enter.weight", 0, 0, 24)  # asked the other way round: heads before head sizes
    assert (resizing.refusal, changes(resizing)) == ("", {"num_heads": 6})


def test_a_width_that_the_heads_do_not_divide_is_refused_with_the_line() -> None:
    resizing, _ = asked(Attention(by_division, as_wide_as_the_input), "enter.weight", 0, 0, 13)
    assert "graph/test_integers.py:" in resizing.refusal


def test_reshaping_heads_to_the_width_of_the_input_ties_both() -> None:
    model = Attention(by_attributes, as_wide_as_the_input)
    resizing, _ = asked(model, "qkv.weight", 0, 1, 4)
    assert (resizing.refusal, changes(resizing)) == ("", {"num_heads": 4})
    assert sorted(resizing.sizes.values()) == [4, 16]


def test_a_literal_is_refused_with_file_line_and_number() -> None:
    resizing, _ = asked(Attention(by_literals, flat), "qkv.weight", 0, 1, 4)
    line = by_literals.__code__.co_firstlineno + 1
    assert resizing.refusal == f"a size is written as 3 at graph/test_integers.py:{line}"


Sizes = namedtuple("Sizes", ["up", "down"])


@dataclass(frozen=True)
class Frozen:
    up: int


class Configured(nn.Module):
    """Two layers that see the same width through containers of every kind."""

    def __init__(self, kept: object, read: Callable[[object], int]) -> None:
        super().__init__()
        self.kept, self.read = kept, [read]
        self.up, self.down = nn.Linear(7, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)).view(x.shape[0], -1, self.read[0](self.kept)))


@pytest.mark.parametrize(
    ("kept", "read"),
    [
        (6, lambda kept: kept),
        ((1, 6), lambda kept: kept[1]),
        ([1, 6], lambda kept: kept[-1]),
        ({"up": 6}, lambda kept: kept["up"]),
        (Sizes(6, 2), lambda kept: kept.up),
        (Frozen(6), lambda kept: kept.up),
        (SimpleNamespace(inner={"sizes": (6, 2)}), lambda kept: kept.inner["sizes"][0]),
        (5, lambda kept: kept + 1),
        (12, lambda kept: kept // 2),
    ],
    ids=["int", "tuple", "list", "dict", "namedtuple", "dataclass", "nested", "sum", "quotient"],
)
def test_a_size_is_found_wherever_a_module_keeps_it(kept: object, read: Callable[[object], int]) -> None:
    model = Configured(kept, read)
    resizing, _ = asked(model, "up.weight", 0, 0, 9)
    assert resizing.refusal == ""
    kind, was = type(model.kept), repr(model.kept)
    with attributes_set(model, resizing.attributes):
        assert read(model.kept) == 9
        assert type(read(model.kept)) is int
        assert type(model.kept) is kind
    assert repr(model.kept) == was


def test_one_configuration_of_two_modules_must_satisfy_both() -> None:
    config = SimpleNamespace(width=6)
    model = nn.Sequential(Configured(config, lambda c: c.width), nn.Linear(2, 7), Configured(config, lambda c: c.width))
    resizing, (first,) = asked(model, "0.up.weight", 0, 0, 8)
    second = resolve(trace(model, tokens()).parameters["2.up.weight"].dims[0])
    assert resizing.refusal == ""
    assert sorted(resizing.sizes.values()) == [8, 8]
    assert second.size == first.size
    assert changes(resizing) == {"0.kept.width": 8}


class Splitter(nn.Module):
    """Cuts a layer's output into pieces and adds them up."""

    def __init__(self, cut: Callable[[Splitter, Tensor], tuple[Tensor, ...]], total: int = 8) -> None:
        super().__init__()
        self.up, self.cut, self.width, self.sections = nn.Linear(7, total), [cut], 4, [3, 5]
        self.downs = nn.ModuleList(nn.Linear(piece.shape[-1], 2) for piece in cut(self, torch.zeros(1, 1, total)))

    def forward(self, x: Tensor) -> Tensor:
        pieces = self.cut[0](self, self.up(x))
        return torch.stack([down(piece) for down, piece in zip(self.downs, pieces, strict=True)]).sum(0)


@pytest.mark.parametrize(
    ("cut", "sizes", "attributes"),
    [
        (lambda self, x: x.split(self.width, dim=-1), [6, 6], {"width": 6}),
        (lambda self, x: torch.split(x, self.sections, -1), [6], {"sections.0": 6}),
        (lambda self, x: x.chunk(2, -1), [6, 6], {}),
        (lambda self, x: (x[..., : self.width], x[..., self.width :]), [6], {"width": 6}),
        (lambda self, x: (x[..., : -self.width], x[..., -self.width :]), [6], {}),
        (lambda self, x: (x.narrow(-1, 0, self.width), x[:, :, self.width :]), [6], {"width": 6}),
    ],
    ids=["split", "sections", "chunk", "slice", "from_the_end", "narrow"],
)
def test_pieces_grow_with_what_their_code_says(
    cut: Callable[[Splitter, Tensor], tuple[Tensor, ...]], sizes: list[int], attributes: dict[str, int]
) -> None:
    graph = trace(Splitter(cut), tokens())
    first = resolve(graph.parameters["downs.0.weight"].dims[1])
    resizing = graph.resizing({first: 6})
    assert (resizing.refusal, list(resizing.sizes.values()), changes(resizing)) == ("", sizes, attributes)
    assert graph.groups[0].can_widen


def test_group_counts_follow_whole_groups() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.GroupNorm(1, 8), nn.Conv2d(8, 2, 1)
    )
    graph = trace(model, torch.randn(2, 3, 5, 5))
    resizing = graph.resizing({graph.group("0").leaf: 11})
    assert resizing.refusal == ""
    assert {(e.module, e.name, e.value) for e in resizing.attributes} >= {
        ("1", "groups", 11), ("1", "out_channels", 11), ("2", "num_channels", 11), ("3", "in_channels", 11),
    }  # fmt: skip


class Scaled(nn.Module):
    def __init__(self, scale: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.up, self.down, self.scale = nn.Linear(7, 4), nn.Linear(4, 2), [scale]

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.scale[0](self.up(x)))


@pytest.mark.parametrize(
    ("scale", "ratios"),
    [
        (lambda y: y * y.shape[-1] ** -0.5, [0.5]),
        (lambda y: y / y.size(-1), [0.25]),
        (lambda y: y * 0.5, []),
        (lambda y: F.scaled_dot_product_attention(y[:, None], y[:, None], y[:, None])[:, 0], [0.5]),
    ],
    ids=["root", "quotient", "constant", "attention"],
)
def test_factors_that_are_computed_from_sizes_are_reported(
    scale: Callable[[Tensor], Tensor], ratios: list[float]
) -> None:
    resizing, _ = asked(Scaled(scale), "up.weight", 0, 0, 16)
    assert resizing.refusal == ""
    assert [change.ratio for change in resizing.scales] == ratios


def test_another_number_that_changes_with_a_size_is_refused() -> None:
    resizing, _ = asked(Scaled(lambda y: y + y.shape[-1]), "up.weight", 0, 0, 16)
    assert resizing.refusal == "aten.add computes with a number that depends on the size"


def test_torch_attention_grows_its_embedding_and_its_heads_apart() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(7, WIDTH), nn.Linear(WIDTH, 2)
            self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.enter(x)
            return self.leave(x + self.attention(x, x, x, need_weights=False)[0])

    resizing, _ = asked(Model(), "enter.weight", 0, 0, 2 * WIDTH)
    assert resizing.refusal == ""
    found = {e.name: e.value for e in resizing.attributes if e.module == "attention"}
    assert found == {"embed_dim": 24, "kdim": 24, "vdim": 24}
    resizing, inside = asked(Model(), "attention.in_proj_weight", 0, 1, HEADS + 2)
    assert resizing.refusal == ""
    assert set(resizing.sizes) == {inside[1]}
    found = {e.name: e.value for e in resizing.attributes if e.module == "attention"}
    assert found == {"num_heads": HEADS + 2}


class Broken(Configured):
    def forward(self, x: Tensor) -> Tensor:
        super().forward(x)
        self.kept["up"] = 99
        raise ArithmeticError("nothing works")


def test_integers_are_the_users_own_again_after_a_trace_that_failed() -> None:
    model = Broken({"up": 6}, lambda kept: kept["up"])
    kept = model.kept
    with pytest.raises(TraceError, match="nothing works"):
        trace(model, tokens())
    assert model.kept is kept
    assert (kept, type(kept["up"]), type(model.up.in_features)) == ({"up": 6}, int, int)


def test_integers_are_the_users_own_again_after_a_trace() -> None:
    model = Configured(SimpleNamespace(width=6), lambda kept: kept.width)
    trace(model, tokens())
    assert type(model.kept.width) is int
    assert all(
        type(value) is int
        for m in model.modules()
        for value in vars(m).values()
        if isinstance(value, int) and not isinstance(value, bool)
    )


def test_code_that_demands_plain_integers_is_traced_without_following_them() -> None:
    def plain(kept: object) -> int:
        if type(kept) is not int:
            raise TypeError("a plain integer, please")
        return kept

    resizing, _ = asked(Configured(6, plain), "up.weight", 0, 0, 9)
    assert "the forward fails at another size" in resizing.refusal or "-1" in resizing.refusal


def test_an_integer_kept_from_another_trace_is_a_plain_number() -> None:
    cache: dict[str, int] = {}

    def cached(kept: object) -> int:
        return cache.setdefault("up", kept)  # type: ignore[arg-type]

    model = Configured(6, cached)
    trace(model, tokens())
    resizing, _ = asked(model, "up.weight", 0, 0, 9)
    assert resizing.refusal.startswith("a size is written as 6 at")
    assert type(cache["up"] + 1) is int
