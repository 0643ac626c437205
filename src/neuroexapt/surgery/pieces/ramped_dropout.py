"""Dropout whose rate rises from 0."""

from __future__ import annotations

from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from neuroexapt.surgery.pieces.ramp import Ramp, kept


class RampedDropout(_DropoutNd):
    """Dropout (Srivastava et al. 2014), of whole channels if asked (Tompson et al. 2015), at a rate that rises from 0.

    In eval mode it is the identity. It is one of torch's dropout layers to all code that looks for these.

    Args:
        rate: Final probability of a zero, in [0, 1).
        ramp_steps: Train-mode forwards until it is reached.
        positions: Dimensions along which one draw is shared: (2, 3) drops whole channels of ``[N, C, H, W]``.
    """

    def __init__(self, rate: float, ramp_steps: int, positions: tuple[int, ...] = ()) -> None:
        super().__init__(p=rate)
        self.positions = tuple(positions)
        self.ramp = Ramp(rate, ramp_steps)

    def forward(self, x: Tensor, *inputs: object) -> Tensor:
        """Any shape -> the same shape."""
        if not self.training:
            return x
        sample = x
        for dim in self.positions:
            sample = sample.narrow(dim, 0, 1)
        return x * kept(sample, self.ramp())
