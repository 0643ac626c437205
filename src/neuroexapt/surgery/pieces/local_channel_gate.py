"""A gate that weighs every channel by its neighbours among the channels (ECA), open at first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LocalChannelGate(nn.Module):
    """``x * 2 sigmoid(conv(mean(x)))`` with ``conv = 0``, a convolution over the channels.

    Wang et al. 2020, ECA-Net, eq. 7; the factor 2 is what makes the start an identity.

    Args:
        kernel_size: Odd number of channels that decide about one.
        positions: Dimensions of the input that are averaged: (2, 3) for ``[N, C, H, W]``, (1,) for ``[N, L, C]``.
    """

    def __init__(self, kernel_size: int, positions: Sequence[int]) -> None:
        super().__init__()
        self.positions = tuple(positions)
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor, *inputs: object) -> Tensor:
        """[N, C, H, W] or [N, L, C] -> the same shape."""
        gate = 2 * torch.sigmoid(self.conv(x.mean(self.positions).unsqueeze(1)).squeeze(1))
        for dim in self.positions:
            gate = gate.unsqueeze(dim)
        return x * gate
