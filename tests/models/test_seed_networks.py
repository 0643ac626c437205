"""The built-in networks: shapes, size, and one call of every module."""

from collections import Counter

import pytest
import torch
from torch import nn

from neuroexapt.errors import ModelError
from neuroexapt.models import MLP, ConvNet, SmallResNet


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_default_resnet_is_small() -> None:
    assert num_parameters(SmallResNet(in_channels=1, num_classes=10)) == 2408


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 7, 5)])
def test_a_resnet_takes_any_image_size(shape: tuple[int, int, int]) -> None:
    model = SmallResNet(in_channels=shape[0], num_classes=10)
    assert model(torch.randn(4, *shape)).shape == (4, 10)


def test_every_stage_after_the_first_halves_the_resolution() -> None:
    model = SmallResNet(in_channels=3, num_classes=10, widths=(4, 6, 8), blocks_per_stage=2)
    assert len(model.blocks) == 6
    assert model.blocks(model.stem(torch.randn(2, 3, 32, 32))).shape == (2, 8, 8, 8)


@pytest.mark.parametrize(
    "model",
    [
        SmallResNet(in_channels=1, num_classes=10, blocks_per_stage=2),
        SmallResNet(in_channels=1, num_classes=10, stem_width=3, hidden=(7, 5), dropout=(0.2, 0.1)),
        ConvNet(in_channels=1, num_classes=10, widths=(4, 5), stem_width=3),
        MLP(in_features=64, num_classes=10),
    ],
    ids=["resnet", "resnet with a classifier", "convnet", "mlp"],
)
def test_every_module_is_called_once_in_a_forward_pass_and_learns(model: nn.Module) -> None:
    calls: Counter[str] = Counter()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    model(torch.randn(4, 1, 8, 8)).square().sum().backward()
    assert dict(calls) == {name: 1 for name, _ in model.named_modules()}
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_an_mlp_without_hidden_layers_is_linear() -> None:
    assert num_parameters(MLP(in_features=64, num_classes=10, hidden=())) == 650
    assert num_parameters(MLP(in_features=64, num_classes=10)) == 64 * 16 + 16 + 16 * 16 + 16 + 170


@pytest.mark.parametrize("widths", [(), (8, 0), (8, 1.5), (True,), 8])
def test_widths_that_are_no_positive_integers_are_refused(widths: object) -> None:
    with pytest.raises(ModelError, match=r"SmallResNet: widths: found .* needed one or more integers of at least 1"):
        SmallResNet(in_channels=1, num_classes=10, widths=widths)  # type: ignore[arg-type]


def test_a_stage_without_blocks_is_refused() -> None:
    with pytest.raises(ModelError, match=r"blocks_per_stage: found \[0\]"):
        SmallResNet(in_channels=1, num_classes=10, blocks_per_stage=0)


def test_hidden_sizes_that_are_no_positive_integers_are_refused() -> None:
    with pytest.raises(ModelError, match=r"MLP: hidden: found \[-3\]"):
        MLP(in_features=4, num_classes=2, hidden=[-3])


def test_the_network_of_the_cpu_profile_can_be_said_in_options() -> None:
    model = SmallResNet(
        in_channels=3,
        num_classes=10,
        stem_width=32,
        widths=(64, 128, 256),
        first_stride=2,
        hidden=(512, 128),
        dropout=(0.3, 0.2),
    )
    assert model.stem(torch.randn(2, 3, 32, 32)).shape == (2, 32, 32, 32)
    assert model.blocks(model.stem(torch.randn(2, 3, 32, 32))).shape == (2, 256, 4, 4)
    kinds = [type(module).__name__ for module in model.head]
    assert kinds == [*["Linear", "BatchNorm1d", "ReLU", "Dropout"] * 2, "Linear"]
    assert [module.p for module in model.head if isinstance(module, nn.Dropout)] == [0.3, 0.2]
    assert num_parameters(model) == 1_407_658


@pytest.mark.parametrize("dropout", [(0.1,), (0.1, 1.0), ("a", 0.1)])
def test_a_classifier_needs_one_probability_for_each_hidden_layer(dropout: object) -> None:
    with pytest.raises(ModelError, match="SmallResNet: dropout: found"):
        SmallResNet(in_channels=1, num_classes=10, hidden=(4, 4), dropout=dropout)  # type: ignore[arg-type]


def test_every_stage_of_a_convnet_halves_the_resolution() -> None:
    model = ConvNet(in_channels=3, num_classes=10)
    assert num_parameters(model) == 75_130
    assert model.stages(model.stem(torch.randn(2, 3, 32, 32))).shape == (2, 48, 4, 4)
    deeper = ConvNet(in_channels=3, num_classes=10, convs_per_stage=3, activation="gelu")
    assert sum(isinstance(module, nn.GELU) for module in deeper.modules()) == 10


def test_the_logits_of_a_convnet_are_scaled_as_told() -> None:
    inputs, networks = torch.randn(2, 3, 8, 8), []
    for scale in (1.0, 0.125):
        torch.manual_seed(0)
        networks.append(ConvNet(in_channels=3, num_classes=10, logit_scale=scale))
    assert torch.equal(networks[0](inputs) * 0.125, networks[1](inputs))


def test_an_activation_that_a_convnet_does_not_have_is_refused() -> None:
    with pytest.raises(ModelError, match="ConvNet: activation: found 'tanh', needed one of relu, gelu"):
        ConvNet(in_channels=3, num_classes=10, activation="tanh")
