"""A gate that weighs every channel by all channels (squeeze and excite), open at first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ChannelGate(nn.Module):
    """``x * 2 sigmoid(W2 relu(W1 mean(x)))`` with ``W2 = 0``: the factor is exactly 1 at first.

    Hu et al. 2018, Squeeze-and-Excitation Networks, eq. 2-4; the factor 2 is what makes the start an identity.

    Args:
        channels: C of the input and output.
        hidden: Units between the two linear layers.
        positions: Dimensions of the input that are averaged: (2, 3) for ``[N, C, H, W]``, (1,) for ``[N, L, C]``, none
            for ``[N, C]``.
    """

    def __init__(self, channels: int, hidden: int, positions: Sequence[int]) -> None:
        super().__init__()
        self.positions = tuple(positions)
        self.reduce = nn.Linear(channels, hidden)
        self.expand = nn.Linear(hidden, channels)
        nn.init.kaiming_normal_(self.reduce.weight, nonlinearity="relu")
        nn.init.zeros_(self.reduce.bias)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)

    def forward(self, x: Tensor, *inputs: object) -> Tensor:
        """[N, C, H, W], [N, L, C] or [N, C] -> the same shape."""
        squeezed = x.mean(self.positions) if self.positions else x
        gate = 2 * torch.sigmoid(self.expand(torch.relu(self.reduce(squeezed))))
        for dim in self.positions:
            gate = gate.unsqueeze(dim)
        return x * gate
