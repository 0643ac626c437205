"""Two thin linear layers beside a linear layer that start as nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LowRankBranch(nn.Module):
    """``x + scale * up(down(input))`` with ``scale = 0``, one a channel.

    Args:
        in_features: Last dimension of the input ``[..., I]``.
        out_features: Last dimension of the output ``[..., C]`` beside which this runs.
        rank: Width between the two layers.
    """

    def __init__(self, in_features: int, out_features: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, out_features, bias=False)
        for layer in (self.down, self.up):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        self.scale = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor, *inputs: Tensor) -> Tensor:
        """[..., C] and the layer's input [..., I] -> [..., C]."""
        return x + self.scale * self.branch(x, *inputs)

    def branch(self, x: Tensor, *inputs: Tensor) -> Tensor:
        """What is added, before the scale."""
        y: Tensor = self.up(self.down(inputs[0]))
        return y
