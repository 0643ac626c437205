"""Layers of a class that computes more than torch's: what relies on torch's forward is neither offered nor done."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroexapt.errors import SurgeryError
from neuroexapt.surgery import AddRegularization, Mutation, RemoveLayer, Surgeon, SwapOperation
from surgery.coupled_networks import StandardisedConv


class NormAndActivation(nn.BatchNorm2d):
    """As in timm."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class EqualisedLinear(nn.Linear):
    """As in StyleGAN: the weight is scaled when it is used."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, 2 * self.weight, self.bias)


NETWORKS: dict[str, Callable[[], list[nn.Module]]] = {
    "standardised before a norm": lambda: [StandardisedConv(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1)],
    "a norm that activates": lambda: [nn.Conv2d(3, 6, 3), NormAndActivation(6), nn.Conv2d(6, 4, 1)],
    "standardised between": lambda: [nn.Conv2d(3, 6, 1), StandardisedConv(6, 6, 1), nn.Conv2d(6, 4, 1)],
    "equalised between": lambda: [nn.Flatten(), nn.Linear(192, 6), EqualisedLinear(6, 5), nn.Linear(5, 3)],
}


def images(seed: int = 0) -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(name: str) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(*NETWORKS[name]()).double()
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.rand_like(parameter))
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_every_fold_and_exchange_that_is_offered_can_be_done(name: str) -> None:
    surgeon = Surgeon(built(name), images())
    for mutation in surgeon.candidates(["RemoveLayer", "SwapOperation"]):
        surgeon.revert(surgeon.apply(mutation))


@pytest.mark.parametrize(
    ("name", "mutation", "reason"),
    [
        (
            "standardised before a norm",
            RemoveLayer(path="1", how="fold"),
            "no linear layer or convolution with weights",
        ),
        (
            "a norm that activates",
            RemoveLayer(path="1", how="fold"),
            "NormAndActivation has a forward or hooks of its own",
        ),
        ("equalised between", RemoveLayer(path="2", how="fold"), "EqualisedLinear has a forward or hooks of its own"),
        ("standardised between", SwapOperation(site="1", to="conv", kernel_size=3), "needed a convolution as in torch"),
        ("standardised between", SwapOperation(site="1", to="separable"), "StandardisedConv has a forward of its own"),
    ],
)
def test_what_relies_on_the_forward_of_torch_is_refused_with_the_reason(
    name: str, mutation: Mutation, reason: str
) -> None:
    with pytest.raises(SurgeryError, match=reason):
        Surgeon(built(name), images()).plan(mutation)


def test_a_layer_behind_an_inserted_dropout_folds_as_behind_one_of_the_model() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Linear(6, 3)).double()
    surgeon = Surgeon(model, images())
    surgeon.apply(AddRegularization(variant="dropout", rate=0.3, site="1", ramp_steps=0))
    assert surgeon.apply(RemoveLayer(path="2", how="fold")).declared == {"train"}


@pytest.mark.parametrize("hooked", [1, 2])
def test_a_layer_whose_hooks_change_what_it_gets_is_not_folded(hooked: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Linear(6, 3)).double()
    if hooked == 1:
        model[1].register_forward_hook(lambda module, args, output: output.tanh())
    else:
        model[2].register_forward_pre_hook(lambda module, args: (args[0].tanh(),))
    surgeon = Surgeon(model, images())
    assert not surgeon.candidates(["RemoveLayer"])
    with pytest.raises(SurgeryError, match="cannot fold"):
        surgeon.plan(RemoveLayer(path="2", how="fold"))
