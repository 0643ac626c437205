"""A branch that tells every position about its surroundings, or about the whole, silent at first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PooledContext(nn.Module):
    """``x + scale * mix(pool(x))`` with one ``scale = 0`` a channel (Bachlechner et al. 2021, ReZero, eq. 2).

    The global form is the context of Cao et al. 2019 (GCNet, eq. 4) with equal weights at all positions.

    Args:
        channels: C of the input and output.
        kernel_size: Extent of the local average, odd; 0 averages over all positions.
        is_mixed: Whether a linear layer mixes the pooled channels (1x1 in convolutions' words).
        is_map: Input is ``[N, C, H, W]``, otherwise ``[N, L, C]``.
    """

    def __init__(self, channels: int, kernel_size: int, is_mixed: bool, is_map: bool) -> None:
        super().__init__()
        self.kernel_size, self.is_map = kernel_size, is_map
        self.scale = nn.Parameter(torch.zeros(channels, 1, 1) if is_map else torch.zeros(channels))
        self.mix: nn.Module | None = None
        if is_mixed:
            self.mix = nn.Conv2d(channels, channels, 1) if is_map else nn.Linear(channels, channels)

    def forward(self, x: Tensor, *inputs: object) -> Tensor:
        """[N, C, H, W] or [N, L, C] -> the same shape."""
        return x + self.scale * self.branch(x)

    def branch(self, x: Tensor, *inputs: object) -> Tensor:
        """What is added, before the scale; one position where it is the same at all."""
        context = self._pooled(x)
        if self.mix is not None:
            context = self.mix(context)
        return context

    def _pooled(self, x: Tensor) -> Tensor:
        size = self.kernel_size
        if not size:
            return x.mean((2, 3) if self.is_map else 1, keepdim=True)
        if self.is_map:
            return F.avg_pool2d(x, size, 1, size // 2, count_include_pad=False)
        return F.avg_pool1d(x.transpose(1, 2), size, 1, size // 2, count_include_pad=False).transpose(1, 2)
