"""Two U-Nets in the ways that people write them by hand."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


def _double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Ronneberger et al. 2015: max-pooling down, transposed convolutions up, skips by concatenation."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 128), num_classes: int = 3) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.enter = _double_conv(3, widths[0])
        self.down = nn.ModuleList([_double_conv(a, b) for a, b in pairs])
        self.up = nn.ModuleList([nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in reversed(pairs)])
        self.merge = nn.ModuleList([_double_conv(2 * a, a) for a, _ in reversed(pairs)])
        self.head = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, 3, height, width) to (batch, classes, height, width)."""
        x = self.enter(x)
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(nn.functional.max_pool2d(x, 2))
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], dim=1))
        return self.head(x)


class ShuffleUNet(nn.Module):
    """Strided convolutions down, pixel shuffle up, group norm, SiLU, and additive residuals inside."""

    def __init__(self, width: int = 16, depth: int = 2, num_groups: int = 4, num_classes: int = 3) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(depth + 1)]
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList([nn.Conv2d(a, 2 * a, 3, stride=2, padding=1) for a in widths[:-1]])
        self.norms = nn.ModuleList([nn.GroupNorm(num_groups, a) for a in widths[1:]])
        self.refine = nn.ModuleList([nn.Conv2d(a, a, 3, padding=1) for a in widths[1:]])
        self.up = nn.ModuleList([nn.Conv2d(2 * a, 4 * a, 1) for a in reversed(widths[:-1])])
        self.merge = nn.ModuleList([nn.Conv2d(2 * a, a, 3, padding=1) for a in reversed(widths[:-1])])
        self.shuffle = nn.PixelShuffle(2)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, 3, height, width) to (batch, classes, height, width)."""
        silu = nn.functional.silu
        x = self.enter(x)
        skips = []
        for down, norm, refine in zip(self.down, self.norms, self.refine, strict=True):
            skips.append(x)
            x = silu(norm(down(x)))
            x = x + silu(refine(x))
        for up, merge in zip(self.up, self.merge, strict=True):
            x = silu(merge(torch.cat([skips.pop(), self.shuffle(up(x))], dim=1)))
        return self.head(x)
