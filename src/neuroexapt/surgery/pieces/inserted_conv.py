"""A convolution that starts as nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class InsertedConv(nn.Module):
    """A shape-keeping convolution whose initial effect is the identity.

    Args:
        channels: C of the input and output ``[N, C, H, W]``.
        kernel_size: Odd extent; padding keeps H and W.
        as_identity: ``relu(conv(x))`` with a Dirac kernel, exact for ``x >= 0``; otherwise
            ``x + scale * relu(conv(x))`` with random ``conv`` and ``scale = 0`` ``[C, 1, 1]``.
    """

    def __init__(self, channels: int, kernel_size: int, as_identity: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.scale: nn.Parameter | None
        if as_identity:
            nn.init.dirac_(self.conv.weight)
            self.register_parameter("scale", None)
        else:
            nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
            self.scale = nn.Parameter(torch.zeros(channels, 1, 1))

    def branch(self, x: Tensor, *inputs: Tensor) -> Tensor:
        """What is added, before the scale; everything where the layer starts as the identity."""
        return torch.relu(self.conv(x))

    def forward(self, x: Tensor, *inputs: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y = self.branch(x)
        return y if self.scale is None else x + self.scale * y
