"""A plain convolutional network that is quick to train on small images: few wide stages with max pooling early in each.

The layout of the network in K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024 (section 3.1), which
goes back to the ResNet-9 of D. Page's DAWNBench entry (2018): in each stage a 3x3 convolution, max pooling, batch norm
and an activation, then further 3x3 convolutions; max pooling over what is left, and one linear layer. Its stem is a
trained convolution instead of a whitening one.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from neuroexapt.errors import ModelError
from neuroexapt.models.checks import require_positive

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class ConvNet(nn.Module):
    """A plain convolutional network for images of at least 2 ** stages pixels a side.

    With its defaults it has 75,130 parameters on colour images of 10 classes.

    Args:
        in_channels: Of the images.
        num_classes: Logits.
        widths: Channels of each stage.
        stem_width: Channels of the stem, which keeps the resolution; every stage halves it.
        convs_per_stage: 3x3 convolutions in each stage.
        activation: "relu" or "gelu".
        logit_scale: What the last layer's output is multiplied by; below 1 its weights take larger steps towards less
            confident logits, as in both networks above (1/9 and 1/8).
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        widths: Sequence[int] = (16, 48, 48),
        stem_width: int = 16,
        convs_per_stage: int = 2,
        activation: str = "relu",
        logit_scale: float = 1.0,
    ) -> None:
        super().__init__()
        require_positive("ConvNet: widths", widths, at_least_one=True)
        require_positive("ConvNet: stem_width", [stem_width])
        require_positive("ConvNet: convs_per_stage", [convs_per_stage])
        if activation not in ACTIVATIONS:
            raise ModelError(
                f"ConvNet: activation: found {activation!r}, needed one of {', '.join(ACTIVATIONS)}. "
                "Correct model.options."
            )
        self.stem = nn.Sequential(*_layer(in_channels, stem_width, activation))
        stages: list[nn.Module] = []
        channels = stem_width
        for width in widths:
            layers = _layer(channels, width, activation, nn.MaxPool2d(2))
            for _ in range(convs_per_stage - 1):
                layers += _layer(width, width, activation)
            stages.append(nn.Sequential(*layers))
            channels = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.head = nn.Linear(channels, num_classes)
        self.logit_scale = logit_scale

    def forward(self, x: Tensor) -> Tensor:
        """Maps images [N, in_channels, H, W] to logits [N, num_classes]."""
        y: Tensor = self.head(self.pool(self.stages(self.stem(x))).flatten(1)) * self.logit_scale
        return y


def _layer(in_channels: int, out_channels: int, activation: str, *pool: nn.Module) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return [convolution, *pool, nn.BatchNorm2d(out_channels), ACTIVATIONS[activation]()]
