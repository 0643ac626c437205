"""A multilayer perceptron on flattened images: the smallest network that can be widened and deepened."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from neuroexapt.models.checks import require_positive


class MLP(nn.Module):
    """Flatten, then linear layers with a ReLU after each but the last; no normalisation."""

    def __init__(self, *, in_features: int, num_classes: int, hidden: Sequence[int] = (16, 16)) -> None:
        super().__init__()
        require_positive("MLP: hidden", hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        features = in_features
        for width in hidden:
            layers += [nn.Linear(features, width), nn.ReLU()]
            features = width
        self.layers = nn.Sequential(*layers, nn.Linear(features, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Maps images [N, C, H, W] with C * H * W = in_features to logits [N, num_classes]."""
        y: Tensor = self.layers(x)
        return y
