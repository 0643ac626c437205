"""One operation for another: kernels inside kernels, and gates that are exact at both ends."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from contracts.networks import batch, build
from contracts.state import fingerprint
from neuroexapt.errors import SurgeryError
from neuroexapt.surgery import RemoveLayer, Surgeon, SwapOperation, replay
from neuroexapt.surgery.pieces import GatedOperation

EXACT = 1e-10  # float64, relative: summation order is all that may differ


class Around(nn.Module):
    """One module with something before and behind it, so that nothing is input or output."""

    def __init__(self, module: nn.Module, rank: int, channels: int) -> None:
        super().__init__()
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank]
        self.first = convolution(2, 6, 1)
        self.module = module
        self.head = nn.Linear(channels, 3)
        self.rank = rank

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.module(self.first(x)).flatten(2).mean(-1).tanh())


def around(module: nn.Module, rank: int = 2, channels: int = 4, dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = Around(module, rank, channels)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.4)
    return model.to(dtype)


def inputs(rank: int = 2, dtype: torch.dtype = torch.float64, seed: int = 3) -> Tensor:
    return torch.randn(3, 2, *(7,) * rank, generator=torch.Generator().manual_seed(seed)).to(dtype)


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


CONVOLUTIONS: dict[str, tuple[nn.Module, int, dict[str, Any]]] = {
    "1 in 3": (nn.Conv2d(6, 4, 1), 2, {"kernel_size": 3}),
    "1 in 5, stride 2": (nn.Conv2d(6, 4, 1, stride=2, bias=False), 2, {"kernel_size": 5}),
    "3 in 5": (nn.Conv2d(6, 4, 3, padding=1), 2, {"kernel_size": 5}),
    "3 in 5, stride 2, no padding": (nn.Conv2d(6, 4, 3, stride=2), 2, {"kernel_size": 5}),
    "3 dilated in 5": (nn.Conv2d(6, 4, 3, padding=2, dilation=2), 2, {"kernel_size": 5}),
    "3 dilated in 7, stride 2": (nn.Conv2d(6, 4, 3, 2, padding=1, dilation=2), 2, {"kernel_size": 7}),
    "3 dilated by 3 in 7": (nn.Conv2d(6, 4, 3, padding=3, dilation=3), 2, {"kernel_size": 7, "dilation": 1}),
    "3 dilated in 5 dilated": (nn.Conv2d(6, 4, 3, padding=2, dilation=2), 2, {"kernel_size": 5, "dilation": 2}),
    "2 in 4": (nn.Conv2d(6, 4, 2, stride=2), 2, {"kernel_size": 4}),
    "groups": (nn.Conv2d(6, 4, 3, padding=1, groups=2), 2, {"kernel_size": 5}),
    "depthwise": (nn.Conv2d(6, 6, 3, padding=1, groups=6), 2, {"kernel_size": 5}),
    "groups made dense": (nn.Conv2d(6, 4, 3, padding=1, groups=2), 2, {"groups": 1}),
    "depthwise made dense and larger": (nn.Conv2d(6, 6, 3, padding=1, groups=6), 2, {"groups": 1, "kernel_size": 5}),
    "depthwise in fewer groups": (nn.Conv2d(6, 12, 3, padding=1, groups=6), 2, {"groups": 2}),
    "transposed groups made dense": (nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2), 2, {"groups": 1}),
    "1x3 in 3x3": (nn.Conv2d(6, 4, (1, 3), padding=(0, 1)), 2, {"kernel_size": (3, 3)}),
    "same": (nn.Conv2d(6, 4, 3, padding="same"), 2, {"kernel_size": 5}),
    "valid": (nn.Conv2d(6, 4, 3, padding="valid"), 2, {"kernel_size": 5}),
    "circular": (nn.Conv2d(6, 4, 3, padding=1, padding_mode="circular"), 2, {"kernel_size": 5}),
    "reflect, same": (nn.Conv2d(6, 4, 3, padding="same", padding_mode="reflect"), 2, {"kernel_size": 5}),
    "replicate": (nn.Conv2d(6, 4, 3, padding=1, padding_mode="replicate"), 2, {"kernel_size": 5}),
    "transposed": (nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1), 2, {"kernel_size": 5}),
    "transposed, no room to crop": (nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2), 2, {"kernel_size": 4}),
    "in one dimension": (nn.Conv1d(6, 4, 3, padding=1), 1, {"kernel_size": 5}),
    "in three": (nn.Conv3d(6, 4, 1, bias=False), 3, {"kernel_size": 3}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_kernel_inside_another_gives_the_same_in_both_modes_and_stays_a_standard_layer(name: str) -> None:
    module, rank, wanted = CONVOLUTIONS[name]
    module = copy.deepcopy(module)
    model = around(module, rank, module.out_channels)
    unseen = inputs(rank, seed=9)
    before, shape, keys = model(unseen).detach(), module(model.first(unseen)).shape, list(model.state_dict())
    patch = Surgeon(model, inputs(rank)).apply(SwapOperation(site="module", to="conv", **wanted))
    for training in (False, True):
        assert (model.train(training)(unseen) - before).abs().max() <= EXACT * before.abs().max()
    assert patch.declared == frozenset()
    assert type(module) is type(CONVOLUTIONS[name][0])
    assert module(model.first(unseen)).shape == shape
    assert tuple(module.weight.shape[2:]) == module.kernel_size
    assert list(model.state_dict()) == keys
    twin = type(module)(**_constructor(module)).to(torch.float64)
    twin.load_state_dict(module.state_dict())
    assert torch.equal(twin(model.first(unseen)), module(model.first(unseen)))


def _constructor(module: Any) -> dict[str, Any]:
    names = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"]
    more = {"output_padding": module.output_padding} if module.transposed else {}
    return {name: getattr(module, name) for name in names} | more | {"bias": module.bias is not None}


def test_new_taps_learn() -> None:
    module = nn.Conv2d(6, 4, 1)
    model = around(module)
    Surgeon(model, inputs()).apply(SwapOperation(site="module", to="conv", kernel_size=3))
    model(inputs()).square().sum().backward()
    assert bool((module.weight.grad != 0).all())


def test_blocks_of_a_grouped_kernel_keep_their_moments_and_gradients_and_the_rest_begins_at_zero() -> None:
    module = nn.Conv2d(6, 4, 3, padding=1, groups=2)
    model = around(module)
    optimizer = AdamW(model.parameters())
    model(inputs()).square().sum().backward()
    optimizer.step()
    weight, moment = module.weight.detach().clone(), optimizer.state[module.weight]["exp_avg"].clone()
    gradient = module.weight.grad.clone()
    patch = Surgeon(model, inputs(), optimizer).apply(SwapOperation(site="module", to="conv", groups=1))
    now = (module.weight.detach(), optimizer.state[module.weight]["exp_avg"], module.weight.grad)
    for new, old in zip(now, (weight, moment, gradient), strict=True):
        assert torch.equal(new[:2, :3], old[:2])
        assert torch.equal(new[2:, 3:], old[2:])
        assert not new[:2, 3:].any()
        assert not new[2:, :3].any()
    fresh = patch.new_entries(model)["module.weight"]
    assert fresh is not None
    assert fresh.sum() == fresh.numel() / 2
    assert bool(fresh[:2, 3:].all())
    optimizer.zero_grad()
    model(inputs()).square().sum().backward()
    assert bool((module.weight.grad[fresh] != 0).all())


@pytest.mark.parametrize(
    ("module", "wanted", "reason"),
    [
        (
            nn.Conv2d(6, 4, 2),
            {"kernel_size": 3},
            "a kernel that reaches over 3 positions has no common centre with one",
        ),
        (nn.Conv2d(6, 4, 3), {"kernel_size": 3}, "it is that already"),
        (nn.Conv2d(6, 4, 5), {"kernel_size": 3}, "the padding would be negative"),
        (nn.Conv2d(6, 4, 7), {"kernel_size": (9, 9, 9)}, "it has 2 dimensions of positions"),
        (nn.Conv2d(6, 4, 1, groups=2), {"groups": 4}, "4 groups do not divide its channels"),
        (nn.BatchNorm2d(6), {"kernel_size": 3}, "it is a BatchNorm2d, needed a convolution"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 4, 1)), {}, "it is a Sequential, needed a convolution"),
        (nn.ConvTranspose2d(6, 4, 5, padding=2), {"kernel_size": 3}, "it is a transposed convolution, for which only"),
    ],
)
def test_what_has_no_place_inside_the_other_is_refused_with_the_reason(
    module: nn.Module, wanted: dict[str, Any], reason: str
) -> None:
    channels = 6 if isinstance(module, nn.BatchNorm2d) else 4
    model = around(copy.deepcopy(module), channels=channels)
    with pytest.raises(SurgeryError, match=f"module: cannot become conv.*: {reason}"):
        Surgeon(model, inputs()).apply(SwapOperation(site="module", to="conv", **wanted))


def test_taps_that_would_only_read_padding_are_refused() -> None:
    model = around(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 4, 1)))
    with pytest.raises(SurgeryError, match="its input has a single position there"):
        Surgeon(model, inputs()).apply(SwapOperation(site="module.1", to="conv", kernel_size=3))


def test_a_shared_weight_is_refused() -> None:
    pair = nn.Sequential(nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1))
    pair[1].weight = pair[0].weight
    with pytest.raises(SurgeryError, match="its weight is computed or shared"):
        Surgeon(around(pair, channels=6), inputs()).apply(SwapOperation(site="module.0", to="conv", kernel_size=3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": "origami"}, "to: one of conv, separable"),
        ({"to": "gelu", "kernel_size": 3}, "kernel_size is for to='conv'"),
        ({"to": "conv", "kernel_size": 0}, "needs kernel_size: integers >= 1"),
        ({"to": "gelu", "ramp_steps": 0}, "needs ramp_steps: int >= 1"),
    ],
)
def test_wrong_fields_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SwapOperation(site="module", **arguments)


GATED: dict[str, tuple[nn.Module, int, dict[str, Any]]] = {
    "separable": (nn.Conv2d(6, 4, 3, stride=2, padding=1), 4, {"to": "separable"}),
    "separable without bias": (nn.Conv2d(6, 4, 3, padding="same", bias=False), 4, {"to": "separable"}),
    "smaller kernel": (nn.Conv2d(6, 4, 5, padding=2), 4, {"to": "conv", "kernel_size": 3}),
    "dilated": (nn.Conv2d(6, 4, 3, padding=1), 4, {"to": "conv", "kernel_size": 3, "dilation": 2}),
    "grouped": (nn.Conv2d(6, 4, 3, padding=1), 4, {"to": "conv", "groups": 2}),
    "max to average": (nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), 6, {"to": "average"}),
    "average to max": (nn.AvgPool2d(2), 6, {"to": "max"}),
    "adaptive": (nn.AdaptiveMaxPool2d((2, 3)), 6, {"to": "average"}),
    "relu to gelu": (nn.ReLU(), 6, {"to": "gelu"}),
    "relu in place to silu": (nn.ReLU(inplace=True), 6, {"to": "silu"}),
    "gelu to relu": (nn.GELU(), 6, {"to": "relu"}),
}


def gated(name: str, dtype: torch.dtype = torch.float64, ramp_steps: int = 4) -> tuple[nn.Module, Surgeon, AdamW]:
    module, channels, wanted = GATED[name]
    model = around(copy.deepcopy(module), channels=channels, dtype=dtype)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    surgeon = Surgeon(model, inputs(dtype=dtype), optimizer)
    surgeon.apply(SwapOperation(site="module", ramp_steps=ramp_steps, **wanted))
    return model, surgeon, optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", GATED)
def test_the_gate_is_exact_to_the_bit_at_0_and_at_1(name: str, dtype: torch.dtype) -> None:
    module, channels, wanted = GATED[name]
    model = around(copy.deepcopy(module), channels=channels, dtype=dtype)
    unseen = inputs(dtype=dtype, seed=9)
    old = bits(model.module(model.first(unseen)))
    Surgeon(model, inputs(dtype=dtype)).apply(SwapOperation(site="module", ramp_steps=4, **wanted))
    for training in (False, True):
        assert bits(copy.deepcopy(model).train(training).module(model.first(unseen))) == old
    piece = model.module.grafts[0]
    piece.num_steps.fill_(4)
    new = bits(piece.operation(model.first(unseen)))
    assert new != old
    assert bits(model.module(model.first(unseen))) == new
    assert bits(model.eval().module(model.first(unseen))) == new


def test_a_closed_gate_lets_nothing_of_the_new_operation_through_and_an_open_one_nothing_of_the_old() -> None:
    piece = GatedOperation("relu", 0, {}, 4).eval()
    old, given = torch.tensor([-0.0, 1.0, float("inf")]), torch.tensor([-1.0, float("inf"), 2.0])
    assert bits(piece(old, given)) == bits(old)
    piece.num_steps.fill_(4)
    assert bits(piece(old, given)) == bits(given.relu())


def test_an_average_over_padded_windows_is_of_what_is_there() -> None:
    model = gated("max to average")[0]
    model.module.grafts[0].num_steps.fill_(4)
    assert torch.equal(model.module(torch.ones(1, 6, 7, 7).double()), torch.ones(1, 6, 4, 4).double())


def test_a_finished_exchange_is_offered_to_settle_and_no_other() -> None:
    model, surgeon, _ = gated("relu to gelu")
    settle = RemoveLayer(path="module", how="settle")
    model.module.grafts[0].num_steps.fill_(3)
    assert settle not in surgeon.candidates(["RemoveLayer"])
    model.module.grafts[0].num_steps.fill_(4)
    assert settle in surgeon.candidates(["RemoveLayer"])


@pytest.mark.parametrize("name", GATED)
def test_the_ramp_runs_in_any_loop_everything_learns_and_the_new_operation_settles(name: str) -> None:
    model, surgeon, optimizer = gated(name)
    piece = model.module.grafts[0]
    new = [parameter for parameter in piece.parameters() if parameter.requires_grad]
    gradients = []
    for step in range(4):
        model(inputs(seed=step)).square().sum().backward()
        gradients.append([bool(p.grad.any()) for p in new])
        optimizer.step()
        optimizer.zero_grad()
    assert all(gradients[1])
    model.eval()(inputs())
    assert piece.num_steps == 4
    moments = [optimizer.state[p]["exp_avg"] for p in new]
    before = bits(model(inputs(seed=9)))
    patch = surgeon.apply(RemoveLayer(path="module", how="settle"))
    assert patch.output_change == 0
    assert patch.declared == frozenset()
    assert patch.added == ()
    assert bits(model(inputs(seed=9))) == before
    assert model.module is piece.operation
    assert not any(".grafts." in key for key in model.state_dict())
    assert all("neuroexapt" not in type(module).__module__ for module in model.module.modules())
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in model.parameters()}
    assert all(optimizer.state[p]["exp_avg"] is m for p, m in zip(new, moments, strict=True))


def test_settling_reverts_to_the_bit_and_replays() -> None:
    model, surgeon, optimizer = gated("separable")
    seed_model = around(copy.deepcopy(GATED["separable"][0]))
    model.module.grafts[0].num_steps.fill_(4)
    before = fingerprint(model, optimizer)
    patch = surgeon.apply(RemoveLayer(path="module", how="settle"))
    lineage = surgeon.lineage
    surgeon.revert(patch)
    assert fingerprint(model, optimizer) == before
    replay(seed_model, lineage, inputs())
    assert list(seed_model.state_dict()) == [
        *(f"first.{name}" for name in ("weight", "bias")),
        *(f"module.{name}" for name in ("depthwise.weight", "pointwise.weight", "pointwise.bias")),
        *(f"head.{name}" for name in ("weight", "bias")),
    ]


def test_settling_half_way_is_declared_and_measured() -> None:
    model, surgeon, _ = gated("relu to gelu")
    model.module.grafts[0].num_steps.fill_(2)
    patch = surgeon.apply(RemoveLayer(path="module", how="settle"))
    assert patch.declared == {"eval", "train"}
    assert patch.output_change > 1e-3


def test_the_ramp_is_saved_with_the_model() -> None:
    model, _, _ = gated("relu to gelu")
    for _ in range(3):
        model(inputs())
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    twin, _, _ = gated("relu to gelu")
    twin.load_state_dict(torch.load(file))
    assert torch.equal(twin.eval()(inputs()), model.eval()(inputs()))
    assert twin.module.grafts[0].num_steps == 3


def test_a_separable_convolution_starts_as_the_nearest_one() -> None:
    convolution = nn.Conv2d(6, 4, 3, padding=1)
    model = around(convolution)
    with torch.no_grad():
        convolution.weight.copy_(convolution.weight[:, :, :1, :1] * convolution.weight[:1])
    Surgeon(model, inputs()).apply(SwapOperation(site="module", to="separable"))
    x = model.first(inputs(seed=9))
    old = nn.functional.conv2d(x, convolution.weight, convolution.bias, padding=1)
    assert (convolution.grafts[0].operation(x) - old).abs().max() <= EXACT * old.abs().max()


def test_a_site_with_pieces_on_it_is_refused() -> None:
    surgeon = gated("relu to gelu")[1]
    with pytest.raises(SurgeryError, match="pieces hang on it, which would run on the old operation only"):
        surgeon.apply(SwapOperation(site="module", to="silu"))


@pytest.mark.parametrize(
    ("site", "to", "reason"),
    [
        ("features.2", "max", "a ReLU cannot be exchanged for it"),
        ("features.0", "gelu", "it is a Conv2d, needed an activation"),
        ("features.6", "average", "it is that already"),
        ("nowhere", "gelu", "no module of that path runs in ConvBatchNorm"),
    ],
)
def test_operations_that_do_not_fit_are_refused(site: str, to: str, reason: str) -> None:
    with pytest.raises(SurgeryError, match=reason):
        Surgeon(build("conv_bn"), batch()).apply(SwapOperation(site=site, to=to))


def test_an_average_starts_its_separable_convolution_from_its_own_kernel_and_settles_with_the_model() -> None:
    model = around(nn.Conv2d(6, 4, 3, padding=1))
    average = AveragedModel(model)
    with torch.no_grad():
        average.module.module.weight.copy_(torch.randn(4, 6, 3, 3, generator=torch.Generator().manual_seed(1)))
    before = average(inputs()).detach()
    surgeon = Surgeon(model, inputs(), averages=average)
    surgeon.apply(SwapOperation(site="module", to="separable", ramp_steps=2))
    assert torch.equal(average(inputs()), before)
    pieces = [m.module.grafts[0] for m in (model, average.module)]
    assert not torch.equal(*(piece.operation.pointwise.weight for piece in pieces))
    for piece in pieces:
        piece.num_steps.fill_(2)
    settled = average.eval()(inputs()).detach()
    surgeon.apply(RemoveLayer(path="module", how="settle"))
    assert torch.equal(average(inputs()), settled)
    assert list(average.module.state_dict()) == list(model.state_dict())
