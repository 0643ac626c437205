"""Another operation in the place of a module, faded in over a number of training steps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "hardswish": nn.Hardswish,
    "tanh": nn.Tanh,
}
_CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLING: dict[tuple[str, int], type[nn.Module]] = {
    ("max", 1): nn.MaxPool1d,
    ("max", 2): nn.MaxPool2d,
    ("max", 3): nn.MaxPool3d,
    ("average", 1): nn.AvgPool1d,
    ("average", 2): nn.AvgPool2d,
    ("average", 3): nn.AvgPool3d,
    ("adaptive_max", 1): nn.AdaptiveMaxPool1d,
    ("adaptive_max", 2): nn.AdaptiveMaxPool2d,
    ("adaptive_max", 3): nn.AdaptiveMaxPool3d,
    ("adaptive_average", 1): nn.AdaptiveAvgPool1d,
    ("adaptive_average", 2): nn.AdaptiveAvgPool2d,
    ("adaptive_average", 3): nn.AdaptiveAvgPool3d,
}


class GatedOperation(nn.Module):
    """``x + gate * (new(input) - x)`` where ``x`` is what the old operation made of the same input.

    The gate is the number of training forwards so far over ``ramp_steps``, at most 1. At 0 the old operation's output
    passes to the bit, at 1 the new one's does. The count is a buffer, as in batch norm, so it is saved and restored.

    Args:
        operation: ``separable``, ``conv``, a kind of pooling or an activation.
        rank: Number of dimensions of positions; 0 for an activation.
        settings: Keyword arguments of the operation's constructor.
        ramp_steps: Forwards in train mode until the old operation is faded out.
    """

    num_steps: Tensor

    def __init__(self, operation: str, rank: int, settings: dict[str, Any], ramp_steps: int) -> None:
        super().__init__()
        self.operation = _made(operation, rank, settings)
        self.ramp_steps = ramp_steps
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.long))

    @property
    def is_done(self) -> bool:
        """Whether the new operation is alone."""
        return not self.num_steps.is_meta and int(self.num_steps) >= self.ramp_steps

    def forward(self, x: Tensor, *inputs: Tensor) -> Tensor:
        """Any shape that both operations give."""
        gate = (self.num_steps.float() / self.ramp_steps).clamp(max=1.0)
        y = self.operation(inputs[0])
        mixed = torch.where(gate <= 0, x, torch.where(gate >= 1, y, x + gate * (y - x)))
        if self.training:
            self.num_steps.add_(1)
        return mixed


def _made(operation: str, rank: int, settings: dict[str, Any]) -> nn.Module:
    if operation in ACTIVATIONS:
        return ACTIVATIONS[operation]()
    if operation == "conv":
        return _CONVOLUTIONS[rank](**settings)
    if operation == "separable":
        return _separable(_CONVOLUTIONS[rank], **settings)
    return POOLING[operation, rank](**settings)


def _separable(
    convolution: type[nn.Module], in_channels: int, out_channels: int, bias: bool, **settings: Any
) -> nn.Module:
    """A depthwise convolution and a 1x1 convolution (Howard et al. 2017, MobileNets, section 3.1), standard layers."""
    depthwise = convolution(in_channels, in_channels, groups=in_channels, bias=False, **settings)
    return nn.Sequential(
        OrderedDict(depthwise=depthwise, pointwise=convolution(in_channels, out_channels, kernel_size=1, bias=bias))
    )
