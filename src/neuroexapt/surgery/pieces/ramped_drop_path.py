"""Drop-path whose rate rises from 0."""

from __future__ import annotations

from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from neuroexapt.surgery.pieces.ramp import Ramp, kept


class RampedDropPath(_DropoutNd):
    """Sets a residual branch to zero for whole samples, at a rate that rises from 0 (Huang et al. 2016, eq. 5).

    The branch of the other samples is divided by its probability of staying, so that its mean is as before. In eval
    mode it is the identity. It is one of torch's dropout layers to all code that looks for these.

    Args:
        rate: Final probability of leaving the branch out, in [0, 1).
        ramp_steps: Train-mode forwards until it is reached.
    """

    def __init__(self, rate: float, ramp_steps: int) -> None:
        super().__init__(p=rate)
        self.ramp = Ramp(rate, ramp_steps)

    def forward(self, x: Tensor, *inputs: object) -> Tensor:
        """[N, ...] -> the same shape."""
        if not self.training:
            return x
        samples = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1))
        return x * kept(samples, self.ramp())
