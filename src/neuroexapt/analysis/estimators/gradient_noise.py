"""How large a layer's gradient is, and how many samples it takes to see it through the noise."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from neuroexapt.analysis.estimators.base import Estimator, Value
from neuroexapt.analysis.estimators.squares import (
    COLUMNS,
    complement,
    in_unit,
    interval_of,
    mean_of_rows,
    positive_interval,
    ratio,
    root,
    square_of_mean,
    squared_norms,
    unit_of,
)
from neuroexapt.analysis.watching import LayerSample


class GradientNoise(Estimator):
    """Norm of the mean gradient of a weight, variance of the samples' own, and their ratio.

    The simple noise scale tr(Sigma) / |G|^2 (McCandlish et al. 2018, An Empirical Model of Large-Batch Training,
    eq. 2.9) is the batch size at which noise and signal are equal in a step. Both are unbiased here: |G|^2 from
    products of different samples. Where |G|^2 cannot be told from 0 the noise scale has no upper end, an infinite
    spread, and the value of a |G|^2 of one standard error.

    The truth that the intervals hold is that of unlimited samples *in the same projection*. Layers of more than 16 x 16
    weights are seen through one count sketch on either side. It keeps squared norms on average; for one layer it
    multiplies |G|^2 by a factor whose standard deviation is about 0.5 for a gradient of rank one (its variance is at
    most (1 + 2/16)^2 - 1), 0.3 for rank four and 0.1 for rank 64, and acts on tr(Sigma) alike. Layers compare within
    such factors; the same layer under the same seed compares exactly.
    """

    name = "gradient_noise"
    views = frozenset({"weight_gradients"})
    values = MappingProxyType(
        {
            "gradient_square": "squared norm of the mean gradient of the weight, >= 0; 0 where the loss is stationary",
            "gradient_rms": "root mean square of the mean gradient over the entries of the weight, >= 0: compares "
            "layers of all sizes; 0 where the loss is stationary",
            "gradient_variance": "trace of the covariance of the samples' gradients, >= 0; 0 where all are the same",
            "noise_scale": "samples at which the gradient's noise is as large as the gradient, >= 0; without upper end "
            "where the gradient cannot be told from 0",
            "gradient_agreement": "1 / (1 + noise_scale), in [0, 1]: share of a sample's squared gradient that all "
            "samples have in common; 0 where the loss is stationary, 1 where all are the same",
        }
    )

    def workspace_bytes(self, sample: LayerSample) -> int:
        """A block of columns in float64 with its copy, and a few numbers for each row."""
        return 16 * len(sample) * COLUMNS + 8 * 24 * (len(sample) + COLUMNS)

    def estimate(self, sample: LayerSample) -> Mapping[str, Value]:
        """See ``values``."""
        rows = sample.weight_gradients
        assert rows is not None
        if len(rows) < 3:
            return {}
        unit = unit_of(rows)
        square, total = square_of_mean(rows, unit=unit), mean_of_rows(squared_norms(rows, unit))
        variance = total.plus(square, -1.0)
        norm = interval_of(square, low=0.0)
        found = {
            "gradient_square": in_unit(norm, unit * unit),
            "gradient_rms": in_unit(root(norm, 1 / max(sample.num_inputs * sample.num_outputs, 1)), unit),
            "gradient_variance": in_unit(positive_interval(variance), unit * unit),
        }
        if scale := ratio(variance, square):
            found["noise_scale"] = scale
            found["gradient_agreement"] = complement(scale, len(rows))
        return found
