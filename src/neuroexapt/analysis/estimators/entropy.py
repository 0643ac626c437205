"""How evenly the activations of a unit are spread over their own range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from neuroexapt.analysis.estimators.base import Estimator, Value
from neuroexapt.analysis.estimators.intervals import groups_of, jackknifed
from neuroexapt.analysis.estimators.standardised import StandardRows, again, block_bytes, block_size
from neuroexapt.analysis.watching import LayerSample

CENTRES = 7
BINS = CENTRES + 2
REACH = 2.0  # standard deviations from the first centre to the mean; what is further away counts as if it were there
_DOUBT = 0.1  # share of the bias that its correction may leave
_STEP = 2 * REACH / (CENTRES - 1)


class Entropy(Estimator):
    """Entropy of each unit's standardised activation in fixed bins, over the logarithm of their number.

    Nine bins, two thirds of a standard deviation apart, whatever the scale of the unit. Their edges are soft (B-splines
    of order 2, Daub et al. 2004, section 3): an activation counts in the three nearest bins, in proportion. So a unit
    that is often at one value, as behind a ReLU, does not jump from bin to bin with the estimate of its mean. The
    jackknife takes the bias off (Zahl 1977), of the bins and of standardising alike; the formula of Miller and Madow
    (1955), to which it comes down for hard bins, does not know that mean and variance are estimated and takes too much.
    """

    name = "entropy"
    views = frozenset({"features"})
    values = MappingProxyType(
        {
            "unit_entropy": "entropy of a unit's standardised activation in 9 soft bins over log 9, mean over units "
            "that vary, in [0, 1]: 0.83 for a Gaussian, 0.63 for two equally likely values"
        }
    )

    def workspace_bytes(self, sample: LayerSample) -> int:
        """A block with its bins, and the rows without a quarter of them."""
        n, width = sample.features.shape
        return block_bytes(n, width) + (32 * n + 200) * block_size(n, width) + 100 * n

    def estimate(self, sample: LayerSample) -> Mapping[str, Value]:
        """See ``values``."""
        rows = StandardRows.of(sample.features)
        if not rows.num_units:
            return {}
        kept = groups_of(rows.num_rows)
        whole, repeated = 0.0, [0.0] * len(kept)
        for _, z in rows.blocks():
            whole += _entropy(z)
            for group, chosen in enumerate(kept):
                repeated[group] += _entropy(again(z, chosen))
        top = rows.num_units * math.log(BINS)
        return {"unit_entropy": jackknifed(whole / top, [x / top for x in repeated], doubt=_DOUBT, low=0.0, high=1.0)}


def _entropy(z: Tensor) -> float:
    """Returns the sum of the entropies of standardised units ``[n, b]``, in nats."""
    offset = z.clamp(-REACH, REACH).add_(REACH).div_(_STEP)  # from the first centre, in steps
    nearest = offset.round().long()
    offset.sub_(nearest)
    below, above = (offset - 0.5).square_().div_(2), (offset + 0.5).square_().div_(2)
    shares = z.new_zeros(BINS, z.shape[1])
    shares.scatter_add_(0, nearest, below)
    shares[2:].scatter_add_(0, nearest, above)
    shares[1:].scatter_add_(0, nearest, above.add_(below).neg_().add_(1))
    shares.div_(len(z))
    return -float(torch.xlogy(shares, shares).sum(dtype=torch.float64))
