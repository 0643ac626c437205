"""Layers that leave: folded, merged, passed by; and what was inserted, taken out again."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from contracts.networks import BasicBlock, ResNet, batch, build
from contracts.state import fingerprint, raw
from neuroexapt.errors import SurgeryError
from neuroexapt.surgery import InsertLayer, Mutation, RemoveLayer, Surgeon, candidates

EXACT = 1e-10  # float64, relative: summation order is all that may differ
FLOAT32 = 1e-5


def randomised(model: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Weights and running statistics off their 0 and 1."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(noise + 0.5 if "running_var" in name else noise - 0.5)
    return model.to(dtype).eval()


def inputs(rank: int = 2, seed: int = 3) -> Tensor:
    return torch.randn(3, 4, *(6,) * rank, generator=torch.Generator().manual_seed(seed)).double()


def change(model: nn.Module, x: Tensor, before: Tensor) -> float:
    return float((model(x) - before).detach().abs().max() / before.abs().max())


FOLDED = {
    "convolution": ([nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)], 2),
    "without bias": ([nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)], 2),
    "grouped": ([nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)], 2),
    "depthwise without bias": ([nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4)], 2),
    "transposed": ([nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6)], 2),
    "transposed, grouped, without bias": ([nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6)], 2),
    "without gains": ([nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, affine=False)], 2),
    "in one dimension": ([nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6)], 1),
    "in three": ([nn.Conv3d(4, 6, 3, bias=False), nn.BatchNorm3d(6)], 3),
    "linear": ([nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6)], 0),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", FOLDED)
def test_a_batch_norm_folds_into_the_layer_before_it(name: str, dtype: torch.dtype) -> None:
    layers, rank = FOLDED[name]
    model = randomised(copy.deepcopy(nn.Sequential(*layers, nn.Tanh(), nn.Flatten(2) if rank else nn.Tanh())), dtype)
    unseen = 3 * inputs(rank, seed=9).to(dtype)
    before = model(unseen).detach()
    surgeon = Surgeon(model, inputs(rank).to(dtype), AdamW(model.parameters()))
    patch = surgeon.apply(RemoveLayer(path="1", how="fold"))
    assert patch.declared == {"train"}
    assert change(model, unseen, before) <= (EXACT if dtype is torch.float64 else FLOAT32)
    assert type(model[1]) is nn.Identity
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
    surgeon.revert(patch)
    assert torch.equal(model(unseen), before)


def linear(*sizes: int, bias: bool = True) -> nn.Linear:
    return nn.Linear(*sizes, bias=bias)


MERGED = {
    "linear, linear": ([linear(4, 7), linear(7, 3)], 0, "1", "0"),
    "the second has no bias": ([linear(4, 7), linear(7, 3, bias=False)], 0, "1", "0"),
    "the first has no bias": ([linear(4, 7, bias=False), linear(7, 3)], 0, "1", "0"),
    "neither has": ([linear(4, 7, bias=False), linear(7, 3, bias=False)], 0, "1", "0"),
    "the first of two": ([linear(4, 7), linear(7, 3, bias=False)], 0, "0", "1"),
    "3x3, 1x1": ([nn.Conv2d(4, 7, 3, 2, padding=1), nn.Conv2d(7, 3, 1)], 2, "1", "0"),
    "3x3 without bias, 1x1": ([nn.Conv2d(4, 7, 3, bias=False), nn.Conv2d(7, 3, 1)], 2, "1", "0"),
    "1x1, 3x3 without padding": ([nn.Conv2d(4, 7, 1), nn.Conv2d(7, 3, 3)], 2, "0", "1"),
    "1x1, dilated without bias": ([nn.Conv2d(4, 7, 1), nn.Conv2d(7, 3, 3, dilation=2, bias=False)], 2, "0", "1"),
    "1x1 without bias, padded": ([nn.Conv2d(4, 7, 1, bias=False), nn.Conv2d(7, 3, 3, 2, 1)], 2, "0", "1"),
    "1x1, circular": ([nn.Conv2d(4, 7, 1), nn.Conv2d(7, 3, 3, padding=1, padding_mode="circular")], 2, "0", "1"),
    "one dimension": ([nn.Conv1d(4, 7, 3), nn.Conv1d(7, 3, 1)], 1, "1", "0"),
}


@pytest.mark.parametrize("name", MERGED)
def test_two_linear_maps_merge_exactly_in_both_modes(name: str) -> None:
    layers, rank, path, into = MERGED[name]
    model = randomised(copy.deepcopy(nn.Sequential(*layers, nn.Tanh())))
    unseen = 3 * inputs(rank, seed=9)
    before = model(unseen).detach()
    surgeon = Surgeon(model, inputs(rank), AdamW(model.parameters()))
    patch = surgeon.apply(RemoveLayer(path=path, how="fold"))
    assert patch.description == f"fold {path} into {into}"
    assert patch.declared == frozenset()
    for training in (False, True):
        assert change(model.train(training), unseen, before) <= EXACT
    assert {key.partition(".")[0] for key in model.state_dict()} == {into}
    layer = model[int(into)]
    type(layer)(**_constructor(layer)).load_state_dict(layer.state_dict())


def _constructor(module: nn.Module) -> dict[str, object]:
    names = ("in_features", "out_features", "in_channels", "out_channels", "kernel_size", "stride", "padding")
    names += ("dilation", "padding_mode")
    known = {name: vars(module)[name] for name in names if name in vars(module)}
    return known | {"bias": module.bias is not None}


def test_linear_maps_with_a_dropout_between_them_are_the_same_in_eval_mode_only() -> None:
    model = randomised(nn.Sequential(nn.Linear(4, 7), nn.Dropout(0.5), nn.Linear(7, 3)))
    assert Surgeon(model, inputs(0)).apply(RemoveLayer(path="2", how="fold")).declared == {"train"}


class Shared(nn.Module):
    """The convolution's output goes to its norm and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (self.norm(y) + y).tanh()


@pytest.mark.parametrize(
    ("model", "path", "reason"),
    [
        (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), nn.Tanh()), "1", "no linear layer or convolution with weights of"),
        (nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU(), nn.BatchNorm2d(6)), "2", "no linear layer or convolution with"),
        (Shared(), "norm", "no linear layer or convolution with weights of its own hands its output to it alone"),
        (
            nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6, track_running_stats=False), nn.Tanh()),
            "1",
            "it keeps no running statistics",
        ),
        (nn.Sequential(nn.Conv2d(4, 7, 1), nn.Conv2d(7, 3, 3, padding=1)), "0", "its bias does not reach the zeros"),
        (nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 6, 3)), "1", "needed a linear layer or a 1x1 convolution"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 6, 1)), "1", "no linear layer or dense convolution"),
        (nn.Sequential(nn.Conv2d(4, 4, 3), nn.Tanh()), "1", "needed a batch norm, a linear layer or a convolution"),
    ],
)
def test_what_does_not_fold_is_refused_with_the_reason(model: nn.Module, path: str, reason: str) -> None:
    with pytest.raises(SurgeryError, match=f"{path}: cannot fold: {reason}"):
        Surgeon(randomised(model), inputs()).apply(RemoveLayer(path=path, how="fold"))


def test_a_tied_weight_is_not_folded() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 4, 1))
    model[3].weight = model[0].weight
    with pytest.raises(SurgeryError, match="cannot fold: no linear layer or convolution with weights of its own"):
        Surgeon(randomised(model), inputs()).apply(RemoveLayer(path="1", how="fold"))


def test_the_optimizer_and_the_average_follow_a_fold() -> None:
    model = build("conv_bn").eval()
    average = AveragedModel(model)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.mul_(1.1)
    optimizer = AdamW(model.parameters())
    model(batch()).sum().backward()
    optimizer.step()
    before, moment = average(batch()).detach(), optimizer.state[model.features[0].weight]["exp_avg"].clone()
    optimizer.zero_grad()
    Surgeon(model, batch(), optimizer, averages=average).apply(RemoveLayer(path="features.1", how="fold"))
    assert change(average, batch(), before) <= EXACT
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in model.parameters()}
    assert torch.equal(optimizer.state[model.features[0].weight]["exp_avg"], moment)


def test_undoing_a_fold_lists_the_optimizers_state_in_its_old_order() -> None:
    model = build("conv_bn").eval()
    optimizer = AdamW(model.parameters())
    model(batch()).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    before = list(optimizer.state_dict()["state"])
    surgeon = Surgeon(model, batch(), optimizer)
    patch = surgeon.apply(RemoveLayer(path="features.1", how="fold"))
    assert len(optimizer.state_dict()["state"]) == len(before) - 2
    surgeon.revert(patch)
    assert list(optimizer.state_dict()["state"]) == before


@pytest.mark.parametrize("site", ["features.2", "features.3"])
def test_removing_what_was_inserted_is_exact_to_the_bit_and_leaves_the_users_own_class(site: str) -> None:
    model = build("conv_bn")
    optimizer = AdamW(model.parameters())
    surgeon = Surgeon(model, batch(), optimizer)
    before, expected = fingerprint(model, optimizer), model.eval()(batch()).detach()
    model.train()
    surgeon.apply(InsertLayer(site=site))
    grown = fingerprint(model, optimizer)
    removal = surgeon.apply(RemoveLayer(path=f"{site}.grafts.0"))
    assert removal.declared == frozenset()
    assert removal.output_change == 0
    assert fingerprint(model, optimizer) == before
    assert b"neuroexapt" not in pickle.dumps(model)
    assert raw(model.eval()(batch())) == raw(expected)
    model.train()
    surgeon.revert(removal)
    assert fingerprint(model, optimizer) == grown


def test_one_of_two_pieces_leaves_and_the_other_keeps_its_name() -> None:
    model = build("conv_bn")
    surgeon = Surgeon(model, batch())
    surgeon.apply(InsertLayer(site="features.5"))
    surgeon.apply(InsertLayer(site="features.5"))
    surgeon.apply(RemoveLayer(path="features.5.grafts.0"))
    assert {key for key in model.state_dict() if "grafts" in key} == {
        f"features.5.grafts.1.conv.{name}" for name in ("weight", "bias")
    }
    surgeon.apply(RemoveLayer(path="features.5.grafts.1"))
    assert type(model.features[5]) is nn.ReLU
    surgeon.apply(InsertLayer(site="features.5"))
    assert "features.5.grafts.0.conv.weight" in model.state_dict()


def test_a_trained_piece_leaves_with_a_declared_change_that_can_be_seen_before() -> None:
    model = build("conv_bn")
    optimizer = AdamW(model.parameters())
    surgeon = Surgeon(model, batch(), optimizer)
    surgeon.apply(InsertLayer(site="features.3"))
    with torch.no_grad():
        model.features[3].grafts[0].scale.add_(0.3)
    removal = RemoveLayer(path="features.3.grafts.0")
    before = fingerprint(model, optimizer)
    expected = surgeon.measure_change(removal)
    assert fingerprint(model, optimizer) == before
    assert len(surgeon.lineage) == 1
    patch = surgeon.apply(removal)
    assert patch.declared == {"eval", "train"}
    assert patch.output_change == max(expected.values()) > 1e-3


def zero_initialised() -> nn.Module:
    model = ResNet(BasicBlock(6, 6), BasicBlock(6, 6), BasicBlock(6, 8, 2), out=8)
    nn.init.zeros_(model.blocks[1].bn2.weight)
    return model.double()


def test_a_residual_block_without_effect_is_found_and_leaves_exactly() -> None:
    model = zero_initialised()
    surgeon = Surgeon(model, batch())
    removal = RemoveLayer(path="blocks.1")
    assert removal in surgeon.candidates(["RemoveLayer"])
    assert RemoveLayer(path="blocks.0") not in surgeon.candidates(["RemoveLayer"])
    unseen = 3 * batch().flip(0)
    before = model.eval()(unseen).detach()
    patch = surgeon.apply(removal)
    assert patch.declared == frozenset()
    assert patch.parameter_delta == -2 * (6 * 6 * 9 + 2 * 6)
    assert torch.equal(model(unseen), before)


def test_a_residual_block_with_an_effect_leaves_with_a_declared_change() -> None:
    patch = Surgeon(zero_initialised(), batch()).apply(RemoveLayer(path="blocks.0"))
    assert patch.declared == {"eval", "train"}
    assert patch.output_change > 1e-3


@pytest.mark.parametrize(
    ("layer", "declared"),
    [
        (nn.Dropout(0.3), {"train"}),
        (nn.Dropout(0.0), frozenset()),
        (nn.ReLU(), frozenset()),
        (nn.Tanh(), {"eval", "train"}),
    ],
)
def test_a_module_is_passed_by_exactly_where_it_is_an_identity(layer: nn.Module, declared: set[str]) -> None:
    model = randomised(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), layer, nn.Linear(6, 3)))
    assert Surgeon(model, inputs(0)).apply(RemoveLayer(path="2")).declared == declared


def test_a_relu_that_only_happened_to_see_positive_numbers_is_no_identity() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    nn.init.constant_(model[0].bias, 50.0)
    assert Surgeon(model, torch.randn(3, 4)).apply(RemoveLayer(path="1")).declared == {"eval", "train"}


@pytest.mark.parametrize(
    ("mutation", "reason"),
    [
        (RemoveLayer(path="features.0"), r"features.0: cannot bypass: it makes \(4, 6, 8, 8\) of \(4, 3, 8, 8\)"),
        (RemoveLayer(path="nowhere"), "nowhere: no module of that path in ConvBatchNorm"),
        (RemoveLayer(path="features.2", how="settle"), "cannot settle: needed one gated operation on it"),
    ],
)
def test_what_cannot_leave_is_refused_with_the_reason(mutation: Mutation, reason: str) -> None:
    with pytest.raises(SurgeryError, match=reason):
        Surgeon(build("conv_bn"), batch()).apply(mutation)


def test_a_module_that_runs_twice_or_is_gone_is_refused() -> None:
    surgeon = Surgeon(build("tied_weights"), batch())
    with pytest.raises(SurgeryError, match="shared: cannot bypass: it runs 2 times per forward, needed once"):
        surgeon.apply(RemoveLayer(path="shared"))
    surgeon = Surgeon(build("conv_bn"), batch())
    surgeon.apply(RemoveLayer(path="features.1", how="fold"))
    with pytest.raises(SurgeryError, match=r"features.1: cannot bypass: an nn\.Identity is there already"):
        surgeon.apply(RemoveLayer(path="features.1"))


class ReadsItsNorm(nn.Module):
    """A forward that looks at a parameter of a module, as regularisers do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).tanh() * (1 + self.norm.weight.abs().mean())


def test_a_forward_that_reads_the_removed_module_is_noticed_and_the_edit_taken_back() -> None:
    model = randomised(ReadsItsNorm())
    optimizer = AdamW(model.parameters())
    before = fingerprint(model, optimizer)
    with pytest.raises(SurgeryError, match=r"'Identity' object has no attribute 'weight'.*The edit was taken back"):
        Surgeon(model, inputs(), optimizer).apply(RemoveLayer(path="norm", how="fold"))
    assert fingerprint(model, optimizer) == before


def test_a_structure_without_numbers_is_folded_and_passed_by() -> None:
    model = build("conv_bn").to("meta")
    surgeon = Surgeon(model, batch())
    assert surgeon.measure_change(RemoveLayer(path="features.2")) == {}
    surgeon.apply(RemoveLayer(path="features.1", how="fold"))
    surgeon.apply(RemoveLayer(path="features.2"))
    surgeon.apply(InsertLayer(site="features.5"))
    surgeon.apply(RemoveLayer(path="features.5.grafts.0"))
    assert type(model.features[5]) is nn.ReLU
    assert {key for key in model.state_dict() if key.startswith("features.0")} == {
        "features.0.weight",
        "features.0.bias",
    }
    assert candidates(surgeon.graph, ["RemoveLayer"]) == [RemoveLayer(path="features.4", how="fold")]


def test_wrong_fields_are_named() -> None:
    with pytest.raises(ValueError, match=r"how: one of bypass, fold, settle, found 'features\.1' and 'evict'"):
        RemoveLayer(path="features.1", how="evict")  # type: ignore[arg-type]


PIECES = [
    (name, kind)
    for name in ("conv_bn", "resnet_basic", "transformer")
    for kind in ("InsertLayer", "AddBranch", "AddResidual", "AddAttention", "AddPooling", "AddRegularization")
]


@pytest.mark.parametrize(("name", "kind"), [*PIECES, ("mlp", "SwapOperation")])
def test_whatever_a_kind_hangs_on_a_module_leaves_exactly_while_it_does_nothing(name: str, kind: str) -> None:
    model = build(name)
    optimizer = AdamW(model.parameters())
    surgeon = Surgeon(model, batch(), optimizer)
    before = fingerprint(model, optimizer)
    mutation = surgeon.candidates([kind])[-1]
    site = surgeon.plan(mutation).grafts[0].site
    surgeon.apply(mutation)
    patch = surgeon.apply(RemoveLayer(path=f"{site}.grafts.0"))
    assert patch.declared == frozenset()
    assert patch.output_change == 0
    assert fingerprint(model, optimizer) == before
    assert b"neuroexapt" not in pickle.dumps(model)
