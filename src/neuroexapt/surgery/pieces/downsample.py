"""Fewer positions from here on."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Downsample(nn.Module):
    """Average pooling that leaves every ``stride``-th position; a remainder at the edge is pooled too.

    Args:
        stride: Extent and step of the window.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor, *inputs: object) -> Tensor:
        """[N, C, H, W] -> [N, C, ceil(H / stride), ceil(W / stride)]."""
        return F.avg_pool2d(x, self.stride, self.stride, ceil_mode=True, count_include_pad=False)
