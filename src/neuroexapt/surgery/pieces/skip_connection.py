"""A skip connection between two modules that starts as nothing."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroexapt.surgery.pieces.wire import Wire

Resampling = Literal["", "down", "up", "mean"]


class SkipSource(nn.Module):
    """Hangs where a skip connection begins; changes nothing.

    Args:
        wire: Shared with the other end.
        copies: Whether a copy is passed on, because the model writes into its own.
    """

    def __init__(self, wire: Wire, copies: bool) -> None:
        super().__init__()
        self.wire, self.copies = wire, copies

    def forward(self, x: Tensor, *inputs: Tensor) -> Tensor:
        """Passes the output on as it is."""
        self.wire.put(x.clone() if self.copies else x)
        return x


class SkipConnection(nn.Module):
    """``x + scale * adapter(source)`` with ``scale = 0``, one a channel.

    The adapter resamples where sizes of feature maps differ and is a linear map of the channels where their numbers
    do.

    Args:
        source: Path of the module whose output is added.
        target: Path of the module on whose output this hangs.
        source_channels: Channels there.
        channels: C of the output ``[N, C, H, W]`` or ``[..., C]``.
        is_map: Whether the output is a feature map.
        has_adapter: Whether the channels go through a linear map (1x1 convolution).
        resampling: ``down`` averages over windows, ``up`` repeats the nearest, both to the output's H and W; ``mean``
            averages a map over its positions, for an output without them.
        copies: Whether the source is copied, because the model writes into its output in place.
    """

    def __init__(
        self,
        source: str,
        target: str,
        source_channels: int,
        channels: int,
        is_map: bool,
        has_adapter: bool,
        resampling: Resampling,
        copies: bool,
    ) -> None:
        super().__init__()
        self.wire = Wire(source, target)
        self.resampling, self.copies = resampling, copies
        self.adapter: nn.Module | None = None
        if has_adapter and is_map:
            self.adapter = nn.Conv2d(source_channels, channels, 1, bias=False)
        elif has_adapter:
            self.adapter = nn.Linear(source_channels, channels, bias=False)
        if self.adapter is not None:
            nn.init.kaiming_normal_(self.adapter.weight, nonlinearity="linear")
        self.scale = nn.Parameter(torch.zeros(channels, 1, 1) if is_map else torch.zeros(channels))

    def source_end(self) -> nn.Module:
        """Returns what hangs at the source."""
        return SkipSource(self.wire, self.copies)

    def forward(self, x: Tensor, *inputs: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W], or [..., C] -> [..., C]."""
        return x + self.scale * self.branch(x)

    def branch(self, x: Tensor, *inputs: Tensor) -> Tensor:
        """What is added, before the scale."""
        y = self.wire.take()
        if self.resampling == "down":
            y = F.adaptive_avg_pool2d(y, (x.shape[-2], x.shape[-1]))
        elif self.resampling == "mean":
            y = y.mean((-2, -1))
        if self.adapter is not None:
            y = self.adapter(y)
        if self.resampling == "up":
            y = F.interpolate(y, size=(x.shape[-2], x.shape[-1]))
        return y
