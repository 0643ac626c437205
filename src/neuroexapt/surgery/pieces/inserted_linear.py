"""A linear layer that starts as nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class InsertedLinear(nn.Module):
    """A square linear layer over the last dimension whose initial effect is the identity.

    Args:
        channels: Size of the last dimension of the input and output ``[..., C]``.
        as_identity: ``relu(linear(x))`` with the identity matrix, exact for ``x >= 0``; otherwise
            ``x + scale * relu(linear(x))`` with a random ``linear`` and ``scale = 0`` ``[C]``.
    """

    def __init__(self, channels: int, as_identity: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        nn.init.zeros_(self.linear.bias)
        self.scale: nn.Parameter | None
        if as_identity:
            nn.init.eye_(self.linear.weight)
            self.register_parameter("scale", None)
        else:
            nn.init.kaiming_normal_(self.linear.weight, nonlinearity="relu")
            self.scale = nn.Parameter(torch.zeros(channels))

    def branch(self, x: Tensor, *inputs: Tensor) -> Tensor:
        """What is added, before the scale; everything where the layer starts as the identity."""
        return torch.relu(self.linear(x))

    def forward(self, x: Tensor, *inputs: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        y = self.branch(x)
        return y if self.scale is None else x + self.scale * y
