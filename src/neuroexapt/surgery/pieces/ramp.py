"""A rate that rises from nothing with the number of train-mode forwards."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ramp(nn.Module):
    """``rate * min(num_steps / ramp_steps, 1)``, counted in a buffer as batch norm counts its batches.

    Args:
        rate: Final value, in [0, 1).
        ramp_steps: Forwards until it is reached; 0 begins with it.
    """

    num_steps: Tensor

    def __init__(self, rate: float, ramp_steps: int) -> None:
        super().__init__()
        self.rate, self.ramp_steps = rate, ramp_steps
        self.register_buffer("num_steps", torch.tensor(0))

    def forward(self) -> Tensor:
        """Returns the rate of this forward, a float32 scalar on the buffer's device, and counts it."""
        share = (self.num_steps / self.ramp_steps).clamp(max=1) if self.ramp_steps else torch.ones_like(self.num_steps)
        self.num_steps += 1
        return self.rate * share.float()

    def extra_repr(self) -> str:
        """For example ``rate=0.1, ramp_steps=1000``."""
        return f"rate={self.rate}, ramp_steps={self.ramp_steps}"


def kept(like: Tensor, rate: Tensor) -> Tensor:
    """Returns factors in the shape of ``like``: 0 with probability ``rate``, else ``1 / (1 - rate)``."""
    noise = torch.rand_like(like, dtype=torch.float32)
    return ((noise >= rate) / (1 - rate)).to(like.dtype)
