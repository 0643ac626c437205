"""New units from gradients: ``Widen(init="informed")`` and ``Widen(init="gradmax")``."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from contracts.networks import batch, build
from contracts.state import fingerprint, raw
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import trace
from neuroexapt.surgery import Lineage, Surgeon, Widen, replay
from neuroexapt.surgery.checking.structure import structure_of
from neuroexapt.surgery.growth.fan_in.informed import View, best, spanned

EXACT = 1e-10  # float64, relative: summation order is all that may differ
SILENT_SLOPE = "ignore:.*(slope of the activation at 0 is 0|divides the new units)"


def loss(model: nn.Module) -> Tensor:
    return nn.functional.cross_entropy(model(batch()), torch.arange(4) % 5)


def outputs(model: nn.Module, training: bool) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(model).train(training)(3 * batch(size=6))


@pytest.mark.filterwarnings(SILENT_SLOPE)
@pytest.mark.parametrize(
    ("network", "axis", "init"),
    [
        *((network, axis, init) for init in ("informed", "gradmax") for network, axis in (
            ("plain_conv", "conv1"),
            ("conv_bn", "features.0"),
            ("resnet_bottleneck", "blocks.0.conv1"),
            ("mlp", "layers.1"),
            ("transformer", "up"),
        )),
        ("dense_concat", "convs.0", "informed"),
        ("depthwise_se", "stem", "informed"),
        ("flatten_linear", "conv", "informed"),
        ("resnet_bottleneck", "blocks.1.conv2.weight[0].1", "informed"),
        ("tied_weights", "down", "informed"),
    ],
)  # fmt: skip
def test_units_from_gradients_preserve_the_function_and_touch_nothing_while_planned(
    network: str, axis: str, init: str
) -> None:
    model = build(network)
    optimizer = SGD(model.parameters(), lr=0.1)
    surgeon = Surgeon(model, batch(), optimizer, objective=loss)
    mutation = Widen(axis=axis, to=surgeon.graph.group(axis).size + 2, init=init)
    before, state = [outputs(model, training) for training in (False, True)], fingerprint(model, optimizer)
    surgeon.plan(mutation)
    assert fingerprint(model, optimizer) == state
    patch = surgeon.apply(mutation)
    for old, training in zip(before, (False, True), strict=True):
        assert (outputs(model, training) - old).abs().max() <= EXACT * old.abs().max()
    if network == "mlp":
        twin = build(network)
        Surgeon(twin, batch(), objective=loss).apply(mutation)
        assert [raw(t) for t in twin.state_dict().values()] == [raw(t) for t in model.state_dict().values()]
    surgeon.revert(patch)
    assert fingerprint(model, optimizer) == state


class Pair(nn.Module):
    """Two convolutions of any geometry with a smooth activation between them."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.two = nn.Conv2d(4, 3, (3, 2), stride=(2, 1), padding=(2, 0), dilation=(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(x)))


def _convolutions() -> tuple[nn.Module, Tensor, str, str]:
    return Pair(), torch.randn(5, 2, 9, 8), "one", "two"


def _linear() -> tuple[nn.Module, Tensor, str, str]:
    return nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 3)), torch.randn(7, 5, 6), "0", "2"


@pytest.mark.parametrize("make", [_convolutions, _linear])
def test_the_outgoing_weights_of_gradmax_are_the_leading_singular_subspace_of_the_gradient(
    make: Callable[[], tuple[nn.Module, Tensor, str, str]],
) -> None:
    torch.manual_seed(0)
    model, x, maker, reader = make()
    model, x, new = model.double(), x.double(), 2

    def objective(m: nn.Module) -> Tensor:
        return m(x).pow(3).mean()

    wanted = _dense_gradients(model, objective, maker, reader)
    old = model.get_parameter(f"{reader}.weight").detach().clone()
    Surgeon(model, x, objective=objective).apply(Widen(axis=maker, to=4 + new, init="gradmax"))
    weight = model.get_parameter(f"{reader}.weight").detach()[:, 4:]
    found = weight.transpose(0, 1).reshape(new, -1)
    size = old.transpose(0, 1).flatten(1).norm(dim=1).mean()
    assert torch.allclose(found @ found.T, size**2 * torch.eye(new, dtype=torch.float64), atol=1e-12)
    left, values, _ = torch.linalg.svd(wanted, full_matrices=False)
    assert values[1] / values[2] > 1.01
    assert torch.allclose(found.T @ found / size**2, left[:, :new] @ left[:, :new].T, atol=1e-8)
    assert not model.get_parameter(f"{maker}.weight")[4:].any()
    assert not model.get_parameter(f"{maker}.bias")[4:].any()
    gradient = torch.autograd.grad(objective(model), model.get_parameter(f"{maker}.weight"))[0][4:]
    assert gradient.norm() > 0


def _dense_gradients(model: nn.Module, objective: Callable[[nn.Module], Tensor], maker: str, reader: str) -> Tensor:
    """Row by row: the gradient of one silent unit's incoming weights for each single outgoing weight, by autograd."""
    twin = copy.deepcopy(model)
    group = trace(twin, _inputs_of(twin)).group(maker)
    Surgeon(twin, _inputs_of(twin)).apply(Widen(axis=group.name, to=5))
    incoming, outgoing = twin.get_parameter(f"{maker}.weight"), twin.get_parameter(f"{reader}.weight")
    with torch.no_grad():
        incoming[4:] = 0
        twin.get_parameter(f"{maker}.bias")[4:] = 0
    rows = []
    for index in range(outgoing[:, 4].numel()):
        with torch.no_grad():
            outgoing[:, 4:] = torch.eye(outgoing[:, 4].numel(), dtype=torch.float64)[index].view_as(outgoing[:, 4:])
        rows.append(torch.autograd.grad(objective(twin), incoming)[0][4].flatten())
    return torch.stack(rows)


def _inputs_of(model: nn.Module) -> Tensor:
    return torch.randn(2, 2, 9, 8).double() if isinstance(model, Pair) else torch.randn(2, 5, 6).double()


def test_gradmax_warns_where_the_slope_at_zero_is_zero_and_behind_a_batch_norm() -> None:
    with pytest.warns(UserWarning, match="layers.3: the slope of the activation at 0 is 0.*never get a gradient"):
        Surgeon(build("mlp"), batch(), objective=loss).apply(Widen(axis="layers.3", to=9, init="gradmax"))
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 5, 1), nn.Flatten()).double()
    with pytest.warns(UserWarning, match="0: a norm divides the new units by a standard deviation of 0"):
        Surgeon(model, batch(), objective=lambda m: m(batch()).square().mean()).apply(
            Widen(axis="0", to=6, init="gradmax")
        )


@pytest.mark.parametrize(
    ("network", "axis", "init", "message"),
    [
        ("plain_conv", "conv2", "gradmax", "what head gets is not, position by position, what conv2 makes"),
        ("dense_concat", "stem", "gradmax", "convs.0, convs.1, head read the axis, needed one"),
        ("depthwise_se", "stem", "gradmax", "are not the rows of one linear layer or convolution"),
        ("tied_weights", "enter", "informed", "shared runs more than once per forward"),
        ("tied_weights", "up", "gradmax", "down shares its weight with another module"),
        ("resnet_bottleneck", "blocks.1.conv1.weight[0].1", "informed", "blocks.1.conv2 is no linear layer"),
        ("transformer", "attention.qkv.weight[0].1", "informed", "other axes grow with it"),
        ("transformer", "embed", "gradmax", "can only be copied"),
        ("mlp", "layers.3", "gradmax", "the gradient has 5 directions, found 7 new units"),
    ],
)
def test_where_units_from_gradients_are_not_possible_the_reason_is_told(
    network: str, axis: str, init: str, message: str
) -> None:
    surgeon = Surgeon(build(network), batch(), objective=loss)
    size = surgeon.graph.group(axis).size
    to = 14 if network == "mlp" else 16 if axis == "embed" else size + 2
    with pytest.raises(SurgeryError, match=message):
        surgeon.apply(Widen(axis=axis, to=to, init=init))


def test_an_activation_that_is_not_zero_at_zero_is_no_place_for_gradmax() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 2)).double()
    x = torch.randn(6, 4, dtype=torch.float64)
    with pytest.raises(SurgeryError, match="a unit with zero incoming weights is not 0 behind its activation"):
        Surgeon(model, x, objective=lambda m: m(x).square().mean()).apply(Widen(axis="0", to=4, init="gradmax"))


@pytest.mark.parametrize("init", ["informed", "gradmax"])
def test_without_an_objective_units_begin_silently_and_a_warning_says_so(init: str) -> None:
    model, seed_model = build("transformer"), build("transformer")
    surgeon = Surgeon(model, batch(), objective=loss)
    surgeon.apply(Widen(axis="up", to=14, init=init))
    lineage = Lineage.from_json(surgeon.lineage.to_json())
    with pytest.warns(UserWarning, match=f"up: no objective, so new units begin as zero_fan_out, not {init}"):
        replay(seed_model, lineage, batch())
    assert torch.allclose(outputs(seed_model, False), outputs(model, False), rtol=0, atol=1e-12)
    seed_model.load_state_dict(model.state_dict())
    meta = structure_of(build("transformer"))
    Surgeon(meta, batch()).apply(Widen(axis="up", to=14, init=init))
    assert meta.down.weight.shape == (8, 14)


def test_the_best_candidate_is_the_one_that_explains_most_of_the_residual() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.linalg.qr(torch.randn(40, 6, generator=generator, dtype=torch.float64))[0]
    asked = 3 * rows[:, :1] + 2 * rows[:, 1:2] + rows[:, 2:3]
    units = torch.stack([rows[:, 3], rows[:, 1], 5 * rows[:, 0] + rows[:, 3], 0.1 * rows[:, 0], rows[:, 2]])
    assert best([View(units[:, :, None], asked)], 3) == [3, 1, 4]
    nothing = best([View(units[:, :, None], 0 * asked)], 5)
    assert sorted(nothing) == [0, 1, 2, 3, 4]


def test_what_the_axis_spans_is_projected_out_and_never_everything() -> None:
    h = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = spanned(h)
    assert basis.shape == (20, 5)
    assert torch.allclose(basis @ (basis.T @ h), h)
    assert spanned(torch.randn(20, 50, generator=torch.Generator().manual_seed(0)).double()).shape == (20, 10)


def _teacher() -> tuple[Tensor, Tensor, Callable[[], nn.Module]]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(512, 8, generator=generator, dtype=torch.float64)
    up = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    y = torch.relu(x @ up) @ torch.randn(6, 4, generator=generator, dtype=torch.float64)

    def student() -> nn.Module:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(8, 2), nn.ReLU(), nn.Linear(2, 4)).double()
        _train(model, x, y, 60)
        return model

    return x, y, student


def _train(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> float:
    optimizer = SGD(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        error = nn.functional.mse_loss(model(x), y)
        error.backward()
        optimizer.step()
    return error.item()


def test_informed_units_lower_the_loss_faster_than_random_ones_on_a_teacher() -> None:
    x, y, student = _teacher()
    reached: dict[str, list[float]] = {"zero_fan_out": [], "informed": []}
    for init, losses in reached.items():
        for seed in range(2):
            model = student()
            surgeon = Surgeon(model, x, seed=seed, objective=lambda m: nn.functional.mse_loss(m(x), y))
            surgeon.apply(Widen(axis="0", to=6, init=init))
            losses.append(_train(model, x, y, 30))
    assert sum(reached["informed"]) < 0.95 * sum(reached["zero_fan_out"])
    assert max(reached["informed"]) < sum(reached["zero_fan_out"]) / 2


def test_a_frozen_model_gives_no_gradients_and_says_so() -> None:
    for frozen, message in (("", "depends on no parameter that requires one"), ("layers.1", "layers.1 is frozen")):
        model = build("mlp")
        model.get_submodule(frozen).requires_grad_(False)
        with pytest.raises(SurgeryError, match=message):
            Surgeon(model, batch(), objective=loss).apply(Widen(axis="layers.1", to=12, init="gradmax"))


def test_a_weight_that_an_old_style_hook_computes_is_measured_too() -> None:
    model = build("mlp")
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(model.layers[3])
    patch = Surgeon(model, batch(), objective=loss).apply(Widen(axis="layers.3.bias[0]", to=9, init="informed"))
    assert patch.output_change <= EXACT


class Square(nn.Module):
    """A residual stream: one layer holds the axis in both dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        return self.head(x + torch.relu(self.inner(x)))


def test_informed_units_of_an_axis_that_a_square_layer_reads_and_makes_are_exact() -> None:
    torch.manual_seed(0)
    model, x = Square().double(), torch.randn(6, 5, dtype=torch.float64)
    before = model(2 * x).detach()
    surgeon = Surgeon(model, x, objective=lambda m: m(x).square().mean())
    surgeon.apply(Widen(axis="stem", to=6, init="informed"))
    assert model.inner.weight.shape == (6, 6)
    assert (model(2 * x) - before).abs().max() <= EXACT * before.abs().max()
