"""A small residual network in the CIFAR form: 3x3 stem, stages of basic blocks, global average pool, linear.

K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016 (the basic block of figure 5,
the layout of section 4.2, with the 1x1 convolution of option B where the shape changes).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from neuroexapt.models.checks import require_positive


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: relu(f(x) + shortcut(x))."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, in_channels, H, W] to [N, out_channels, ceil(H / stride), ceil(W / stride)]."""
        inner = self.relu1(self.bn1(self.conv1(x)))
        y: Tensor = self.relu2(self.bn2(self.conv2(inner)) + self.shortcut(x))
        return y


class SmallResNet(nn.Module):
    """A residual network of any image size; every module is called once in a forward pass.

    With its defaults it has 2,408 parameters on grey images of 10 classes. Every stage after the first halves
    the resolution.
    """

    def __init__(
        self, *, in_channels: int, num_classes: int, widths: Sequence[int] = (6, 10), blocks_per_stage: int = 1
    ) -> None:
        super().__init__()
        require_positive("SmallResNet: widths", widths, at_least_one=True)
        require_positive("SmallResNet: blocks_per_stage", [blocks_per_stage])
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        channels = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks_per_stage):
                blocks.append(BasicBlock(channels, width, stride=2 if stage > 0 and block == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images [N, in_channels, H, W] to logits [N, num_classes]."""
        y: Tensor = self.head(self.pool(self.blocks(self.stem(x))).flatten(1))
        return y
