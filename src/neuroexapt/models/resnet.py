"""A small residual network in the CIFAR form: 3x3 stem, stages of basic blocks, global average pool, linear.

K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016 (the basic block of figure 5,
the layout of section 4.2, with the 1x1 convolution of option B where the shape changes).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from neuroexapt.models.checks import require_positive
from neuroexapt.models.classifier import classifier


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

    Args:
        in_channels: Of the images.
        num_classes: Logits.
        widths: Channels of each stage.
        blocks_per_stage: Basic blocks in each.
        stem_width: Channels of the stem; those of the first stage if not given.
        first_stride: Of the first stage; 2 halves the resolution there too.
        hidden: Widths of hidden layers of the classifier, each with batch norm, ReLU and dropout.
        dropout: Probability for each hidden layer, in [0, 1); none if not given.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        widths: Sequence[int] = (6, 10),
        blocks_per_stage: int = 1,
        stem_width: int | None = None,
        first_stride: int = 1,
        hidden: Sequence[int] = (),
        dropout: Sequence[float] = (),
    ) -> None:
        super().__init__()
        require_positive("SmallResNet: widths", widths, at_least_one=True)
        require_positive("SmallResNet: blocks_per_stage", [blocks_per_stage])
        require_positive("SmallResNet: first_stride", [first_stride])
        channels = widths[0] if stem_width is None else stem_width
        require_positive("SmallResNet: stem_width", [channels])
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        for stage, width in enumerate(widths):
            for block in range(blocks_per_stage):
                stride = 1 if block else (2 if stage else first_stride)
                blocks.append(BasicBlock(channels, width, stride=stride))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = classifier("SmallResNet", channels, num_classes, hidden, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images [N, in_channels, H, W] to logits [N, num_classes]."""
        y: Tensor = self.head(self.pool(self.blocks(self.stem(x))).flatten(1))
        return y
