"""Units that never fire, units that never change, and activations that are zero."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from neuroexapt.analysis.estimators.base import Estimator, Value
from neuroexapt.analysis.estimators.intervals import mean_of
from neuroexapt.analysis.watching import LayerSample


class Saturation(Estimator):
    """Dead, constant and saturated units, each counted apart.

    A unit is dead where it was 0, and constant where it had another single value, at every position of every sample.
    """

    name = "saturation"
    views = frozenset({"features"})
    values = MappingProxyType(
        {
            "dead_fraction": "units that were 0 everywhere, in [0, 1]; exact for what was seen",
            "constant_fraction": "units that had one value other than 0 everywhere, in [0, 1]; exact for what was seen",
            "zero_fraction": "activations that are exactly 0, in [0, 1]: 0.5 for a ReLU of a symmetric input",
        }
    )

    def workspace_bytes(self, sample: LayerSample) -> int:
        """One boolean and one number for each row and unit."""
        return sample.features.numel() + 16 * len(sample) + 8 * sample.features.shape[1]

    def estimate(self, sample: LayerSample) -> Mapping[str, Value]:
        """See ``values``."""
        is_constant = sample.low == sample.high
        is_dead = is_constant & (sample.low == 0)
        dead = float(is_dead.float().mean())
        constant = float((is_constant & ~is_dead).float().mean())
        zero = (sample.features == 0).sum(1).double() / sample.features.shape[1]
        return {
            "dead_fraction": Value(dead, 0.0, dead, dead),
            "constant_fraction": Value(constant, 0.0, constant, constant),
            "zero_fraction": mean_of(zero, low=0.0, high=1.0),
        }
