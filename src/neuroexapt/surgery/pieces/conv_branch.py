"""Convolutions beside a convolution that start as nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBranch(nn.Module):
    """``x + scale * convolution(input)`` with ``scale = 0``, one a channel.

    Args:
        in_channels: Channels of the input ``[N, I, H, W]``.
        out_channels: C of the output ``[N, C, H', W']`` beside which this runs.
        kernel_size: Of the convolution; two numbers, as in all that follow but ``frame``.
        stride: That of the layer beside which this runs.
        dilation: Of the convolution.
        padding: Zeros on both sides.
        groups: Of the convolution; with ``pointwise`` of that one, and each input channel has its own kernel.
        pointwise: Whether a 1x1 convolution follows (depthwise-separable).
        frame: What is put around the input first: left, right, top, bottom; negative numbers cut off.
        padding_mode: What the frame is made of, as in ``nn.Conv2d``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        padding: Sequence[int],
        groups: int,
        pointwise: bool,
        frame: Sequence[int],
        padding_mode: str,
    ) -> None:
        super().__init__()
        width, own_groups = (in_channels, in_channels) if pointwise else (out_channels, groups)
        self.conv = nn.Conv2d(
            in_channels,
            width,
            (kernel_size[0], kernel_size[1]),
            (stride[0], stride[1]),
            (padding[0], padding[1]),
            (dilation[0], dilation[1]),
            own_groups,
            bias=False,
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, groups=groups, bias=False) if pointwise else None
        for layer in (self.conv, self.pointwise):
            if layer is not None:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        self.cut = tuple(min(n, 0) for n in frame)
        self.frame = tuple(max(n, 0) for n in frame)
        self.mode = "constant" if padding_mode == "zeros" else padding_mode
        self.scale = nn.Parameter(torch.zeros(out_channels, 1, 1))

    def forward(self, x: Tensor, *inputs: Tensor) -> Tensor:
        """[N, C, H', W'] and the layer's input [N, I, H, W] -> [N, C, H', W']."""
        return x + self.scale * self.branch(x, *inputs)

    def branch(self, x: Tensor, *inputs: Tensor) -> Tensor:
        """What is added, before the scale."""
        y: Tensor = inputs[0]
        if any(self.cut):
            y = F.pad(y, self.cut)
        if any(self.frame):
            y = F.pad(y, self.frame, self.mode)
        y = self.conv(y)
        if self.pointwise is not None:
            y = self.pointwise(y)
        return y
