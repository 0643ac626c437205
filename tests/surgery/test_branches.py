"""Branches beside trained layers: the same positions as the layer's own, whatever its geometry."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from contracts.networks import batch, build
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import trace
from neuroexapt.surgery import (
    AddBranch,
    InsertLayer,
    Lineage,
    RemoveLayer,
    Surgeon,
    SwapOperation,
    Widen,
    candidates,
    replay,
)
from neuroexapt.surgery.mutations.add_branch import side_padding
from neuroexapt.surgery.pieces import PIECES
from neuroexapt.surgery.writing.graft import pieces_of

EXACT = 1e-10
KINDS = ("1x1", "3x3", "5x5", "depthwise", "dilated")
X = torch.randn(2, 4, 13, 11, generator=torch.Generator().manual_seed(0)).double()

GEOMETRIES: list[dict[str, object]] = [
    *({"kernel_size": k, "stride": s, "padding": p} for k, s, p in itertools.product((1, 2, 3), (1, 2, 3), (0, 1))),
    {"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2},
    {"kernel_size": 3, "padding": 2, "groups": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 4},
    {"kernel_size": (1, 7), "padding": (0, 3), "stride": (2, 1)},
    {"kernel_size": (5, 2), "dilation": (1, 3), "groups": 2},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": 5, "padding": "valid", "stride": 2},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    {"kernel_size": (1, 3), "padding": (0, 1), "padding_mode": "circular", "stride": 2},
    {"kernel_size": 2, "padding": 1, "padding_mode": "replicate"},
]


def around(conv: nn.Conv2d) -> nn.Module:
    return nn.Sequential(conv, nn.ReLU(), nn.Conv2d(8, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()


def make(geometry: dict[str, object]) -> nn.Module:
    return around(nn.Conv2d(4, 8, **geometry))  # type: ignore[arg-type]


every_geometry = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
odd_same = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # torch's, on its speed


@every_geometry
@odd_same
def test_a_branch_fits_every_stride_group_dilation_and_padding(geometry: dict[str, object]) -> None:
    model = make(geometry)
    conv, graph = model[0], trace(model, X)
    other = torch.randn(1, 4, 17, 9).double()  # another size than the one that was planned on
    for kind in KINDS:
        (graft,) = AddBranch(site="0", branch=kind).plan(graph, torch.Generator()).grafts
        piece = PIECES[graft.piece](**graft.arguments).double()
        mixing = piece.conv if piece.pointwise is None else piece.pointwise
        assert piece.conv.stride == conv.stride
        assert mixing.groups == conv.groups
        factor = 2 if kind == "dilated" else 1
        assert piece.conv.dilation == tuple(factor * d for d in conv.dilation)
        for x in (X, other):
            assert torch.equal(piece(conv(x), x), conv(x))


@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if g["kernel_size"] in (1, 3, 5)], ids=str)
def test_a_branch_looks_at_the_same_places_as_the_layer(geometry: dict[str, object]) -> None:
    """A branch of the layer's own extent with the layer's weights gives the layer's output, so their centres agree."""
    conv = nn.Conv2d(4, 8, **{**geometry, "bias": False}).double()  # type: ignore[arg-type]
    sizes = conv.kernel_size
    model = around(conv)
    plain = conv(X)
    Surgeon(model, X).apply(AddBranch(site="0", branch=f"{sizes[0]}x{sizes[0]}"))  # type: ignore[arg-type]
    (piece,) = pieces_of(conv)
    with torch.no_grad():
        piece.conv.weight.copy_(conv.weight)
        piece.scale.fill_(2.0)
    assert (conv(X) - 3 * plain).abs().max() <= EXACT


@pytest.mark.parametrize(
    ("conv", "kernel_size", "expected"),
    [
        (nn.Conv2d(1, 1, 2), 3, (0, 1)),
        (nn.Conv2d(1, 1, 2), 1, (-1, 0)),
        (nn.Conv2d(1, 1, 4, padding="same"), 4, (1, 2)),
        (nn.Conv2d(1, 1, 4, padding="same"), 5, (1, 3)),
        (nn.Conv2d(1, 1, 4, padding="valid"), 2, (-1, -1)),
    ],
)
def test_an_odd_difference_goes_behind(conv: nn.Conv2d, kernel_size: int, expected: tuple[int, int]) -> None:
    assert side_padding(conv, 0, kernel_size, 1) == expected


@pytest.mark.parametrize(("kernel_size", "padding"), [(3, 1), (3, 0), (5, 2)])
def test_a_smaller_kernel_in_the_middle_of_the_layers_own_is_the_same_function(kernel_size: int, padding: int) -> None:
    conv = nn.Conv2d(4, 8, kernel_size, 2, padding, bias=False)
    model = around(conv)
    Surgeon(model, X).apply(AddBranch(site="0", branch="1x1"))
    (piece,) = pieces_of(conv)
    middle = kernel_size // 2
    expected = conv.weight.detach().clone()
    with torch.no_grad():
        piece.scale.fill_(1.0)
        expected[:, :, middle, middle] += piece.conv.weight[:, :, 0, 0]
    assert (conv(X) - nn.functional.conv2d(X, expected, stride=2, padding=padding)).abs().max() <= EXACT


def test_the_trained_layer_and_its_gradient_stay() -> None:
    model = make({"kernel_size": 3, "padding": 1})
    weight = model[0].weight
    model(X).sum().backward()
    bits, gradient = weight.detach().clone(), weight.grad.clone()
    model.zero_grad()
    Surgeon(model, X).apply(AddBranch(site="0", branch="3x3"))
    assert model[0].weight is weight
    assert torch.equal(weight, bits)
    model(X).sum().backward()
    assert torch.equal(weight.grad, gradient)


def test_a_low_rank_branch_adds_a_map_of_that_rank() -> None:
    model = build("mlp")
    Surgeon(model, batch()).apply(AddBranch(site="layers.1", branch="low_rank", rank=3))
    (piece,) = pieces_of(model.layers[1])
    change = piece.up.weight @ piece.down.weight
    assert int(torch.linalg.matrix_rank(change)) == 3
    assert change.shape == model.layers[1].weight.shape
    with torch.no_grad():
        piece.scale.fill_(1.0)
    flat = batch().flatten(1)
    own = nn.functional.linear(flat, model.layers[1].weight + change, model.layers[1].bias)
    assert (model.layers[1](flat) - own).abs().max() <= EXACT


def test_every_kind_of_branch_that_a_model_is_offered_can_be_made() -> None:
    for network in ("transformer", "depthwise_se"):
        offered = candidates(trace(build(network), batch()), ["AddBranch"])
        assert {m.site for m in offered}, network
        surgeon = Surgeon(build(network), batch())
        for mutation in offered:
            assert surgeon.apply(mutation).output_change <= EXACT
        assert not candidates(surgeon.graph, ["AddBranch"])  # one branch each is offered


def test_projections_into_heads_and_grouped_convolutions_get_branches() -> None:
    offered = candidates(trace(build("transformer"), batch()), ["AddBranch"])
    assert "attention.qkv" in {m.site for m in offered}
    grouped = candidates(trace(build("resnet_bottleneck"), batch()), ["AddBranch"])
    assert "blocks.1.conv2" in {m.site for m in grouped}


def train_pieces(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".grafts." in name:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


@pytest.mark.parametrize("kind", ["3x3", "depthwise", "dilated"])
def test_a_trained_branch_bears_every_later_edit_of_its_axes_and_a_second_branch(kind: str) -> None:
    model = build("conv_bn")
    Surgeon(model, batch()).apply(AddBranch(site="features.3", branch=kind))  # type: ignore[arg-type]
    train_pieces(model)
    surgeon = Surgeon(model, batch())
    edits = (
        Widen(axis="features.0", to=9),
        Widen(axis="features.3", to=10),
        AddBranch(site="features.3", branch="1x1"),
        InsertLayer(site="features.3"),
        Widen(axis="features.0", to=11),
    )
    for edit in edits:
        assert surgeon.apply(edit).output_change <= EXACT
    piece, second, _ = pieces_of(model.features[3])
    assert piece.conv.in_channels == second.conv.in_channels == 11
    twin = copy.deepcopy(model).eval()
    assert torch.equal(twin(batch()), model.eval()(batch()))


def test_a_lineage_with_branches_replays_on_the_meta_device() -> None:
    model, seed_model = build("resnet_bottleneck").eval(), build("resnet_bottleneck").to("meta").eval()
    surgeon = Surgeon(model, batch())
    surgeon.apply(AddBranch(site="blocks.1.conv2", branch="dilated"))
    surgeon.apply(AddBranch(site="stem.0", branch="depthwise"))
    replay(seed_model, Lineage.from_json(surgeon.lineage.to_json()), batch())
    seed_model.load_state_dict(model.state_dict(), strict=True, assign=True)
    assert torch.equal(seed_model(batch()), model(batch()))


class Own(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


class Gated(nn.Linear):
    def forward(self, x: Tensor, gate: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x) * gate


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.own, self.norm = nn.Conv2d(4, 6, 3), Own(6, 6, 3), nn.BatchNorm2d(6)
        self.linear, self.gated, self.head = nn.Linear(6, 8), Gated(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.own(self.conv(x))).mean((2, 3))
        x = self.linear(x)
        return self.head(torch.relu(self.gated(x, x)))


@pytest.mark.parametrize(
    ("site", "branch", "message"),
    [
        ("own", "3x3", r"own: cannot add a 3x3 branch: Own has a forward of its own, so what it pads is not known\."),
        ("norm", "1x1", r"norm: cannot add a 1x1 branch: found a BatchNorm2d, needed a Conv2d\. Choose another kind\."),
        ("linear", "depthwise", r"depthwise-separable branch: found a Linear, needed a Conv2d\."),
        (
            "conv",
            "low_rank",
            r"conv: cannot add a low-rank branch: found a Conv2d, needed a linear layer over the last",
        ),
        ("gated", "low_rank", r"gated: .* found 2 tensors given to Gated by position, needed one\."),
        ("head", "low_rank", r"head: cannot hang a piece here: an axis of the model's output\."),
    ],
)
def test_places_that_cannot_have_a_branch_are_refused_with_the_reason(site: str, branch: str, message: str) -> None:
    mutation = AddBranch(site=site, branch=branch, rank=2 if branch == "low_rank" else 0)  # type: ignore[arg-type]
    with pytest.raises(SurgeryError, match=message):
        Surgeon(Odd().double(), X).apply(mutation)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"branch": "7x7"}, "branch: one of 1x1, 3x3, 5x5, depthwise, dilated, low_rank, found 'a' and '7x7'"),
        ({"branch": "low_rank"}, "rank: int, 1 or more for low_rank and 0 otherwise, found 0"),
        ({"branch": "3x3", "rank": 2}, "1 or more for low_rank and 0 otherwise, found 2"),
    ],
)
def test_malformed_branches_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AddBranch(site="a", **fields)  # type: ignore[arg-type]


def test_an_exchange_settles_after_the_branch_beside_it_has_left() -> None:
    model = build("plain_conv")
    surgeon = Surgeon(model, batch())
    surgeon.apply(SwapOperation(site="conv1", to="separable", ramp_steps=1))
    surgeon.apply(AddBranch(site="conv1", branch="3x3"))
    model.train()(batch())
    surgeon.apply(RemoveLayer(path="conv1.grafts.1"))
    settle = RemoveLayer(path="conv1", how="settle")
    assert settle in surgeon.candidates(["RemoveLayer"])
    assert not surgeon.apply(settle).declared
    assert type(model.conv1) is nn.Sequential
