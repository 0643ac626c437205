"""Units that never fire, units that never change, and activations that are zero or at the end of their range."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from neuroexapt.analysis.estimators.base import Estimator, Value
from neuroexapt.analysis.estimators.intervals import mean_of
from neuroexapt.analysis.watching import LayerSample

_BLOCK = 256  # units at a time


class Saturation(Estimator):
    """Dead, constant and saturated units, each counted apart.

    A unit is dead where it was 0, and constant where it had another single value, at every position of every sample.
    An activation is saturated where it is at its unit's lowest or highest value and another sample is there too: a
    continuous activation is never twice at its extreme, that of a ReLU, ReLU6, hardtanh or tanh at its end is.
    """

    name = "saturation"
    views = frozenset({"features"})
    values = MappingProxyType(
        {
            "dead_fraction": "units that were 0 everywhere, in [0, 1]; exact for what was seen",
            "constant_fraction": "units that had one value other than 0 everywhere, in [0, 1]; exact for what was seen",
            "zero_fraction": "activations that are exactly 0, in [0, 1]: 0.5 for a ReLU of a symmetric input",
            "saturated_fraction": "activations at the lowest or highest value of a unit that varies, in [0, 1]: 0 for "
            "a continuous one, 0.5 for a ReLU of a symmetric input",
        }
    )

    def workspace_bytes(self, sample: LayerSample) -> int:
        """A few bytes for each row and unit of a block."""
        n, width = sample.features.shape
        return 8 * n * min(width, _BLOCK) + 150 * n + 32 * width

    def estimate(self, sample: LayerSample) -> Mapping[str, Value]:
        """See ``values``."""
        is_constant = sample.low == sample.high
        is_dead = is_constant & (sample.low == 0)
        dead = float(is_dead.float().mean())
        constant = float((is_constant & ~is_dead).float().mean())
        n, width = sample.features.shape
        zero, saturated = torch.zeros(2, n, dtype=torch.float64)
        for start in range(0, width, _BLOCK):
            units = slice(start, start + _BLOCK)
            zero += (sample.features[:, units] == 0).sum(1)
            saturated += _at_an_end(sample, units, ~is_constant[units])
        found = {
            "dead_fraction": Value(dead, 0.0, dead, dead),
            "constant_fraction": Value(constant, 0.0, constant, constant),
            "zero_fraction": mean_of(zero / width, low=0.0, high=1.0),
        }
        if num_varying := int((~is_constant).sum()):
            found["saturated_fraction"] = mean_of(saturated / num_varying, low=0.0, high=1.0)
        return found


def _at_an_end(sample: LayerSample, units: slice, varies: Tensor) -> Tensor:
    """Returns how many units of each row are at an end of their range together with another row: ``[n]``."""
    rows = sample.features[:, units]
    count = torch.zeros(len(rows), dtype=torch.int64)
    for end in (sample.low, sample.high):
        is_there = rows == end[units]
        is_there &= varies & (is_there.sum(0) > 1)
        count += is_there.sum(1)
    return count
