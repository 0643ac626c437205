"""What pruning units promises: dead ones go exactly, ties and moments stay, repair helps on unseen data."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW

from contracts.networks import batch, build
from contracts.state import raw
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import named_tensors, trace
from neuroexapt.surgery import PruneUnits, PruneWeights, Surgeon, Widen, candidates, parse
from neuroexapt.surgery.mutations import MUTATIONS
from neuroexapt.surgery.removal.dead import dead_units

EXACT = 1e-10


def zero(model: nn.Module, path: str, dim: int, units: tuple[int, ...]) -> None:
    named_tensors(model)[path].data.index_fill_(dim, torch.tensor(units), 0.0)


def data(size: int, seed: int) -> Tensor:
    return torch.randn(size, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outputs(model: nn.Module, x: Tensor, training: bool = False) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(model).train(training)(x)


# network, axis, units, and what is zeroed: the readers of the units, or all that makes them
DEAD = {
    "nothing reads them": ("plain_conv", "conv1", (1, 4), [("conv2.weight", 1)]),
    "convolution and bias make zeros": ("plain_conv", "conv2", (0,), [("conv2.weight", 0), ("conv2.bias", 0)]),
    "gain and shift make zeros": ("conv_bn", "features.0", (2,), [("features.1.weight", 0), ("features.1.bias", 0)]),
    "both sides of a residual": (
        "resnet_basic", "blocks.1.conv2", (3,),
        [(f"blocks.1.{norm}.{name}", 0) for norm in ("bn2", "shortcut.1") for name in ("weight", "bias")],
    ),
    "a part of a concatenation": (
        "dense_concat", "convs.0", (1,), [("convs.0.weight", 0), ("convs.0.bias", 0), ("norms.1.weight", -1),
        ("norms.1.bias", -1), ("last.weight", -1), ("last.bias", -1)],
    ),
    "behind a flatten": ("flatten_linear", "conv", (3,), [("conv.weight", 0), ("conv.bias", 0)]),
    "before tanh": ("mlp", "layers.1", (0, 9), [("layers.1.weight", 0), ("layers.1.bias", 0)]),
    "hidden units of a transformer": ("transformer", "up", (5, 6), [("down.weight", 1)]),
    "read by tied weights": ("tied_weights", "up", (0,), [("down.weight", 1)]),
}  # fmt: skip


@pytest.mark.parametrize("case", DEAD)
@pytest.mark.parametrize("repair", ["none", "least_squares"])
def test_dead_units_go_exactly_in_both_modes(case: str, repair: str) -> None:
    network, axis, units, zeros = DEAD[case]
    model = build(network)
    for path, dim in zeros:
        offset = 4 if dim < 0 else 0  # the units lie behind those of the stem
        zero(model, path, max(dim, 0), tuple(unit + offset for unit in units))
    surgeon = Surgeon(model, batch())
    found = dead_units(surgeon.graph, surgeon.graph.group(axis).leaf)
    assert tuple(found.nonzero().flatten().tolist()) == units
    assert PruneUnits(axis=axis, units=units) in surgeon.candidates(["PruneUnits"])
    x = 3 * data(6, 11)
    before = [outputs(model, x, training) for training in (False, True)]
    patch = surgeon.apply(PruneUnits(axis=axis, units=units, repair=repair))
    assert not patch.declared
    assert patch.parameter_delta < 0
    for training, old in zip((False, True), before, strict=True):
        assert (outputs(model, x, training) - old).abs().max() <= EXACT * old.abs().max()


def test_a_unit_that_is_only_half_dead_is_not_dead() -> None:
    model = build("conv_bn")
    zero(model, "features.0.weight", 0, (2,))  # the norm behind still gives it a constant
    zero(model, "features.1.weight", 0, (2,))
    graph = trace(model, batch())
    assert not dead_units(graph, graph.group("features.0").leaf).any()
    model = build("transformer")  # zeros on a residual stream count in the layer norms' means
    graph = trace(model, batch())
    for group in graph.groups:
        if any("layer_norm" in reader for reader in group.readers):
            for member in group.members:
                zero(model, member.path, member.dim, (0,))
            assert not dead_units(graph, group.leaf).any()


def test_units_under_a_mask_are_dead() -> None:
    model = build("plain_conv")
    surgeon = Surgeon(model, batch())
    with torch.no_grad():
        model.conv2.weight[:, 3] *= 1e-9
    surgeon.apply(PruneWeights(layer="conv2", amount=1 / 6))
    graph = surgeon.graph
    assert dead_units(graph, graph.group("conv1").leaf).nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize(
    ("network", "axis"), [("resnet_bottleneck", "stem.0"), ("depthwise_se", "stem"), ("mlp", "layers.3")]
)
def test_pruning_then_widening_returns_the_size_and_reverting_both_the_bytes(network: str, axis: str) -> None:
    model = build(network)
    before = {name: raw(t) for name, t in model.state_dict().items()}
    surgeon = Surgeon(model, batch())
    size = surgeon.graph.group(axis).size
    first = surgeon.apply(PruneUnits(axis=axis, units=(1, 2)))
    assert surgeon.graph.group(axis).size == size - 2
    second = surgeon.apply(Widen(axis=axis, to=size))
    assert {name: t.shape for name, t in model.state_dict().items()} == {n: torch.Size(r[0]) for n, r in before.items()}
    assert first.parameter_delta == -second.parameter_delta
    surgeon.revert(second)
    surgeon.revert(first)
    assert {name: raw(t) for name, t in model.state_dict().items()} == before


def test_tied_weights_stay_tied_and_what_is_left_is_what_was_there() -> None:
    model = build("tied_weights")
    surgeon = Surgeon(model, batch())
    weight, identity = model.down.weight.detach().clone(), id(model.down.weight)
    surgeon.apply(PruneUnits(axis="up", units=(0, 7)))
    assert model.down.weight is model.again.weight
    assert id(model.down.weight) == identity
    assert torch.equal(model.down.weight, weight[:, [1, 2, 3, 4, 5, 6, 8, 9, 10]])
    surgeon.apply(PruneUnits(axis="down", units=(3,), repair="mean"))
    assert model.down.weight is model.again.weight
    assert model.down.weight.shape == (7, 9)


def test_the_moments_of_what_stays_stay() -> None:
    model = build("resnet_basic")
    optimizer = AdamW(model.parameters(), lr=1e-2)
    F.cross_entropy(model(batch()), torch.arange(4) % 5).backward()
    optimizer.step()
    optimizer.zero_grad()
    conv = model.blocks[0].conv2.weight
    moments = {k: v.clone() for k, v in optimizer.state[conv].items()}
    Surgeon(model, batch(), optimizer).apply(PruneUnits(axis="blocks.0.conv1", units=(0, 2), repair="least_squares"))
    for key in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(optimizer.state[conv][key], moments[key][:, [1, 3, 4, 5]])
    F.cross_entropy(model(batch()), torch.arange(4) % 5).backward()
    optimizer.step()


class SameWidth(nn.Module):
    """Three layers whose widths the code ties, and whose units never meet."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.gate, self.wide = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 16)
        self.leave, self.past, self.far = nn.Linear(8, 3), nn.Linear(8, 3), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.enter(x))
        width = hidden.shape[1]
        gate = torch.tanh(self.gate(x)).view(len(x), width)
        wide = torch.tanh(self.wide(x)).view(len(x), 2 * width)
        return self.leave(hidden) + self.past(gate) + self.far(wide)


def test_axes_that_the_code_ties_shrink_too_by_the_same_units_or_blocks() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SameWidth().double()
    x = torch.randn(5, 6, dtype=torch.float64)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    surgeon = Surgeon(model, x)
    surgeon.apply(PruneUnits(axis="enter", units=(1, 6)))
    kept = [0, 2, 3, 4, 5, 7]
    assert torch.equal(model.enter.weight, before["enter.weight"][kept])
    assert torch.equal(model.gate.weight, before["gate.weight"][kept])
    assert torch.equal(model.wide.bias.view(6, 2), before["wide.bias"].view(8, 2)[kept])
    with pytest.raises(SurgeryError, match=r"an axis of \d+ units that the code ties to it must shrink to \d+"):
        surgeon.apply(PruneUnits(axis="wide", units=(0, 3)))


class Attention(nn.Module):
    """Two heads of four, with the scale that the code computes from the width of a head."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(6, 8) for _ in range(3))
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (f(x).view(batch, length, 2, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        weights = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, -1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, length, -1)).mean(1)


def test_narrower_heads_keep_the_scale_of_what_is_left() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Attention().double()
    x = torch.randn(5, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        model.query.weight.view(2, 4, 6)[:, 1] = 0
        model.query.bias.view(2, 4)[:, 1] = 0
    before = outputs(model, x)
    patch = Surgeon(model, x).apply(PruneUnits(axis="query.weight[0].1", units=(1,)))
    assert not patch.declared
    assert model.key.weight.shape == (6, 6)
    assert (outputs(model, x) - before).abs().max() <= EXACT * before.abs().max()


def test_attention_heads_go_whole() -> None:
    model = build("transformer")
    surgeon = Surgeon(model, batch())
    names = [group.name for group in surgeon.graph.groups]
    heads = next(n for n in names if n.startswith("attention.qkv") and surgeon.graph.group(n).size == 2)
    surgeon.apply(PruneUnits(axis=heads, units=(1,)))
    assert model.attention.num_heads == 1


@pytest.mark.parametrize(
    ("axis", "units", "why"),
    [
        ("head", (0,), "output"),
        ("conv1", (0, 1, 2, 3, 4, 5), "no unit would be left"),
        ("conv1", (6,), r"found unit 6, needed units from 0 to 5"),
        ("nowhere", (0,), "no group by that name"),
    ],
)
def test_what_cannot_be_pruned_is_refused_with_the_reason(axis: str, units: tuple[int, ...], why: str) -> None:
    model = build("plain_conv")
    before = {name: raw(t) for name, t in model.state_dict().items()}
    with pytest.raises(SurgeryError, match=why):
        Surgeon(model, batch()).apply(PruneUnits(axis=axis, units=units))
    assert {name: raw(t) for name, t in model.state_dict().items()} == before


@pytest.mark.parametrize(
    "fields",
    [{"units": ()}, {"units": (-1,)}, {"units": (1, 1)}, {"units": (0,), "repair": "glue"}, {"units": (True,)}],
)
def test_fields_out_of_range_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(SurgeryError, match="mutation PruneUnits: needs"):
        parse(MUTATIONS, {"kind": "PruneUnits", "axis": "conv1", **fields})


def test_units_are_sorted_and_lists_become_tuples() -> None:
    assert parse(MUTATIONS, {"kind": "PruneUnits", "axis": "a", "units": [3, 1]}) == PruneUnits(axis="a", units=(1, 3))


class Redundant(nn.Module):
    """Units that repeat each other: what some say can be told from the others."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 6, 3, padding=1, bias=not norm)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.head = nn.Linear(6, 4)
        with torch.no_grad():
            self.first.weight[4:] = self.first.weight[:4] + 0.1 * self.first.weight[4:]
            self.first.bias.add_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.second(torch.relu(self.first(x))))).mean((2, 3)))


@pytest.mark.parametrize("norm", [False, True])
def test_repair_lowers_the_change_on_seen_and_on_unseen_data(norm: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Redundant(norm).double().eval()
    seen, unseen = data(16, 0), data(16, 1)
    before = {"seen": outputs(model, seen), "unseen": outputs(model, unseen)}
    errors: dict[str, dict[str, float]] = {}
    surgeon = Surgeon(model, seen)
    for repair in ("none", "mean", "least_squares"):
        patch = surgeon.apply(PruneUnits(axis="first", units=(4, 5, 6), repair=repair))
        errors[repair] = {
            "seen": float((outputs(model, seen) - before["seen"]).square().mean()),
            "unseen": float((outputs(model, unseen) - before["unseen"]).square().mean()),
        }
        assert not patch.added
        surgeon.revert(patch)
    for where in ("seen", "unseen"):
        assert errors["mean"][where] < 0.5 * errors["none"][where]
        assert errors["least_squares"][where] < 0.5 * errors["mean"][where]


class Matrix(nn.Module):
    """A linear layer that keeps its matrix as ``[in, out]``, as the one of GPT-2 does."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(layer.weight.detach().T.contiguous()), layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


@pytest.mark.parametrize("behind", [nn.Identity, lambda: nn.BatchNorm1d(6)])
def test_a_matrix_kept_the_other_way_round_is_repaired_as_the_layer_would_be(behind: Callable[[], nn.Module]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 6), behind()).double()
        x = torch.randn(64, 5, dtype=torch.float64)
    turned = copy.deepcopy(plain)
    turned[2] = Matrix(turned[2])
    before = outputs(plain, x)
    for model in (plain, turned):
        Surgeon(model, x).apply(PruneUnits(axis="0", units=(2, 7), repair="least_squares"))
    assert turned[2].weight.shape == (7, 6)
    assert not torch.allclose(outputs(plain, x), before, rtol=1e-6)
    torch.testing.assert_close(outputs(turned, x), outputs(plain, x), rtol=1e-12, atol=1e-12)


def test_the_mean_goes_into_the_running_mean_behind_a_layer_without_bias_or_into_a_new_bias() -> None:
    model = build("conv_bn")
    surgeon = Surgeon(model, batch())
    mean = model.features[4].running_mean.clone()
    surgeon.apply(PruneUnits(axis="features.0", units=(0,), repair="mean"))
    assert model.features[3].bias is None
    assert not torch.equal(model.features[4].running_mean, mean)
    assert torch.equal(model.features[4].running_var, build("conv_bn").features[4].running_var)
    model = build("resnet_bottleneck")
    patch = Surgeon(model, batch()).apply(PruneUnits(axis="stem.0", units=(0,), repair="mean"))
    assert patch.added == ("blocks.0.downsample.bias",)


def test_after_least_squares_a_batch_norm_expects_the_variance_that_it_gets() -> None:
    model = build("conv_bn")
    norm, variances = model.features[4], []
    conv_outputs: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda module, args: conv_outputs.append(args[0]))
    for _ in range(2):
        with torch.no_grad():
            model.eval()(batch())
        variances.append((conv_outputs[-1].transpose(0, 1).flatten(1).var(1, correction=0), norm.running_var.clone()))
        if len(variances) == 1:
            Surgeon(model, batch()).apply(PruneUnits(axis="features.0", units=(0, 4), repair="least_squares"))
    handle.remove()
    (seen, expected), (seen_after, expected_after) = variances
    assert torch.allclose(expected_after / expected, seen_after / seen)
    assert not torch.allclose(expected_after, expected)


def test_an_average_is_repaired_with_its_own_weights() -> None:
    model = build("plain_conv")
    average = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.mul_(0.5)
    expected = copy.deepcopy(average)
    edit = PruneUnits(axis="conv2", units=(1, 5), repair="least_squares")
    Surgeon(model, batch(), averages=average).apply(edit)
    assert average.head.weight.shape == model.head.weight.shape
    change = average.head.weight - expected.head.weight[:, [0, 2, 3, 4, 6, 7]]
    wanted = model.head.weight - 2 * expected.head.weight[:, [0, 2, 3, 4, 6, 7]]
    assert torch.allclose(2 * change, wanted)


def test_structure_alone_is_pruned_on_the_meta_device() -> None:
    model, empty = build("resnet_bottleneck"), build("resnet_bottleneck").to("meta")
    for edit in candidates(trace(model, batch()), ["PruneUnits"])[:3]:
        edit = dataclasses.replace(edit, repair="least_squares")
        Surgeon(model, batch()).apply(edit)
        Surgeon(empty, batch()).apply(edit)
    shapes = {name: t.shape for name, t in model.state_dict().items()}
    assert {name: t.shape for name, t in empty.state_dict().items()} == shapes
