"""Neuron division: exact before the perturbation, which is as large as it says."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.networks import batch, build
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import trace
from neuroexapt.surgery import MUTATIONS, SplitUnits, Surgeon, parse
from neuroexapt.surgery.checking.structure import structure_of
from neuroexapt.surgery.growth.splitting import least_eigenvectors

EXACT = 1e-10  # float64, relative: summation order is all that may differ
AXIS, UNITS = "layers.1", (1, 4, 6)


class Smooth(nn.Module):
    """Two layers with a smooth activation: a splitting matrix in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.tanh(self.up(x)))


def split(**fields: Any) -> tuple[nn.Module, nn.Module, frozenset[str]]:
    """Returns the model before and after."""
    model = build("mlp")
    before = copy.deepcopy(model)
    patch = Surgeon(model, batch()).apply(SplitUnits(axis=AXIS, units=UNITS, **fields))
    return before, model, patch.declared


def test_an_asymmetric_division_is_exact_and_leaves_three_quarters_with_the_original() -> None:
    before, after, declared = split()
    units = list(UNITS)
    assert not declared
    old, new = before.layers[3].weight, after.layers[3].weight
    assert torch.allclose(new[:, units], 0.75 * old[:, units], rtol=1e-12, atol=0)
    assert torch.allclose(new[:, 10:], 0.25 * old[:, units], rtol=1e-12, atol=0)
    assert torch.equal(after.layers[1].weight[10:], before.layers[1].weight[units])


@pytest.mark.parametrize("mode", ["symmetric", "asymmetric", "functional", "adaptive"])
def test_a_perturbation_is_declared_bounded_and_cancels_in_the_mean_of_the_incoming_weights(mode: str) -> None:
    size = 1e-3
    shares = (0.6, 0.7, 0.55) if mode == "adaptive" else ()
    before, after, declared = split(mode=mode, perturbation=size, shares=shares)
    assert declared == {"eval", "train"}
    old = before.layers[1].weight[list(UNITS)]
    kept, copied = after.layers[1].weight[list(UNITS)], after.layers[1].weight[10:]
    share = torch.tensor(shares or (0.75 if mode == "asymmetric" else 0.5,) * 3, dtype=torch.float64)[:, None]
    assert (share * kept + (1 - share) * copied - old).abs().max() <= 1e-14
    moved = torch.cat([(kept - old).norm(dim=1), (copied - old).norm(dim=1)]) / old.norm(dim=1).repeat(2)
    assert moved.max() <= 2 * size * share.max() * (1 + 1e-9)
    assert moved.min() > 0
    with torch.no_grad():
        x = batch()
        change = (after(x) - before(x)).abs().max(1).values
        slope = before.layers[3].weight[:, list(UNITS)].abs() @ old.norm(dim=1)
        bound = 4 * (share * (1 - share)).max() * size * slope.max() * x.flatten(1).norm(dim=1)
        bound = bound * before.layers[5].weight.abs().sum(1).max()
    assert (change <= bound).all()
    assert change.max() > 0


def test_the_change_of_a_smooth_unit_is_of_second_order() -> None:
    changes = []
    for size in (1e-2, 1e-3):
        model = Smooth().double()
        with torch.no_grad():
            for index, parameter in enumerate(model.parameters()):
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).roll(index).view_as(parameter))
        x = torch.linspace(-1, 1, 20, dtype=torch.float64).view(5, 4)
        before = model(x).detach()
        Surgeon(model, x).apply(SplitUnits(axis="up", units=(0,), mode="symmetric", perturbation=size))
        changes.append(float((model(x) - before).detach().abs().max()))
    assert changes[0] / changes[1] == pytest.approx(100, rel=0.05)


def test_the_halves_of_a_functional_division_have_complementary_incoming_weights() -> None:
    before, after, _ = split(mode="functional", perturbation=1.0)
    old = before.layers[1].weight[list(UNITS)]
    kept, copied = after.layers[1].weight[list(UNITS)], after.layers[1].weight[10:]
    assert (kept * copied).abs().max() <= 1e-15
    assert ((kept - 2 * old).abs().min(1).values <= 1e-15).all()
    assert ((kept == 0).sum(1) == 96).all()


def test_the_steepest_direction_is_the_least_eigenvector_of_the_splitting_matrix() -> None:
    torch.manual_seed(0)
    model = Smooth().double()
    x, y = torch.randn(64, 4, dtype=torch.float64), torch.randn(64, 2, dtype=torch.float64)

    def objective(m: nn.Module) -> Tensor:
        return (m(x) - y).square().mean()

    with torch.no_grad():
        z = model.up(x)
        gradient = 2 * (model(x) - y) / y.numel() @ model.down.weight
        curvature = gradient * (-2 * torch.tanh(z) * (1 - torch.tanh(z).square()))
    old = model.up.weight.detach().clone()
    before = objective(model).item()
    Surgeon(model, x, objective=objective).apply(
        SplitUnits(axis="up", units=(0, 2), mode="symmetric", perturbation=0.1, direction="steepest")
    )
    for index, unit in enumerate((0, 2)):
        values, vectors = torch.linalg.eigh((x * curvature[:, unit : unit + 1]).T @ x)
        moved = model.up.weight.detach()[unit] - old[unit]
        assert moved.norm() == pytest.approx(0.1 * float(old[unit].norm()))
        assert abs(float(moved @ vectors[:, 0])) == pytest.approx(float(moved.norm()), rel=1e-6)
        assert values[0] < 0
        assert torch.allclose(model.up.weight[3 + index] + model.up.weight[unit], 2 * old[unit])
    assert objective(model).item() < before


def test_without_an_objective_the_steepest_direction_is_a_random_one_and_says_so() -> None:
    with pytest.warns(UserWarning, match="no objective, so the split goes in random directions"):
        split(mode="symmetric", perturbation=1e-3, direction="steepest")


def test_lanczos_finds_the_least_eigenvectors_of_many_matrices() -> None:
    matrices = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrices = matrices + matrices.transpose(1, 2)
    vectors, values = least_eigenvectors(
        lambda v: (matrices @ v[:, :, None])[:, :, 0], torch.ones(3, 8, dtype=torch.float64)
    )
    wanted, expected = torch.linalg.eigh(matrices)
    assert torch.allclose(values, wanted[:, 0])
    assert torch.allclose((vectors * expected[:, :, 0]).sum(1).abs(), torch.ones(3, dtype=torch.float64))


def test_shares_are_adapted_to_what_the_loss_depends_on_and_carried_in_the_fields() -> None:
    model, target = build("mlp"), torch.arange(4) % 5
    surgeon = Surgeon(model, batch(), objective=lambda m: nn.functional.cross_entropy(m(batch()), target))
    mutation = SplitUnits.adapted(surgeon.graph, axis=AXIS, count=3)
    assert mutation.mode == "adaptive"
    assert min(mutation.shares) == 0.55
    assert max(mutation.shares) < 0.75
    assert parse(MUTATIONS, mutation.to_json()) == mutation
    assert surgeon.apply(mutation).output_change <= EXACT


def test_an_average_is_divided_by_its_own_numbers() -> None:
    model = build("mlp")
    average = copy.deepcopy(model).requires_grad_(False)
    with torch.no_grad():
        average.layers[1].weight.mul_(2)
    old = average.layers[1].weight.clone()
    mutation = SplitUnits(axis=AXIS, units=UNITS, mode="symmetric", perturbation=1e-3)
    Surgeon(model, batch(), averages=average).apply(mutation)
    kept, copied = average.layers[1].weight[list(UNITS)], average.layers[1].weight[10:]
    assert (kept + copied - 2 * old[list(UNITS)]).abs().max() <= 1e-14
    assert ((kept - copied).norm(dim=1) / old[list(UNITS)].norm(dim=1)).max() == pytest.approx(2e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"units": ()}, "needs axis: str and units: distinct"),
        ({"units": (1, 1)}, "needs axis: str and units: distinct"),
        ({"mode": "equal"}, "needs a mode of symmetric, asymmetric, functional, adaptive"),
        ({"mode": "symmetric"}, "needs perturbation > 0 where a unit is halved"),
        ({"mode": "adaptive"}, "needs one share a unit for adaptive"),
        ({"mode": "adaptive", "shares": (1.5, 0.5, 0.5)}, "needs shares between 0 and 1"),
        ({"perturbation": 2}, "needs a perturbation from 0 to 1"),
    ],
)
def test_fields_of_a_division_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SplitUnits(**{"axis": AXIS, "units": UNITS, **fields})


def test_units_that_are_not_there_or_cannot_be_copied_alone_are_refused() -> None:
    with pytest.raises(SurgeryError, match=r"layers.1: found 10 units, needed unit 10\. Give smaller"):
        Surgeon(build("mlp"), batch()).apply(SplitUnits(axis=AXIS, units=(10,)))
    with pytest.raises(SurgeryError, match=r"embed: aten.native_layer_norm .* so no unit can be copied alone"):
        Surgeon(build("transformer"), batch()).apply(SplitUnits(axis="embed", units=(0,)))


def test_a_division_is_planned_on_the_meta_device_too() -> None:
    model = structure_of(build("mlp"))
    mutation = SplitUnits(axis=AXIS, units=UNITS, mode="symmetric", perturbation=1e-3, direction="steepest")
    found = SplitUnits.candidates(trace(model, batch().to("meta")), growth=1.5)
    assert [m.units for m in found] == [(0, 1, 2, 3, 4), (0, 1, 2)]
    Surgeon(model, batch()).apply(mutation)
    assert model.layers[1].weight.shape == (13, 192)
