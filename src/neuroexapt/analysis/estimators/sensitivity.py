"""How much a layer's units matter to the loss: first order (Taylor) and second order (Fisher)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from neuroexapt.analysis.estimators.base import Estimator, Value
from neuroexapt.analysis.estimators.intervals import t_quantile
from neuroexapt.analysis.estimators.squares import (
    COLUMNS,
    blocks,
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

NEGLIGIBLE = 0.01  # of what the average unit costs


class Sensitivity(Estimator):
    """What the loss would change by if single units were set to 0, and how many units carry that.

    With r = activation * gradient, summed over positions, of one sample and unit: the Taylor sensitivity of a unit is
    |E r| (Molchanov et al. 2019, Importance Estimation for Neural Network Pruning, eq. 8 and 10), its Fisher
    sensitivity E r^2 / 2 (Theis et al. 2018, Faster Gaze Prediction With Dense Networks and Fisher Pruning, eq. 9).
    Squares of means are made of products of different samples, since the square of a noisy mean is too large.
    """

    name = "sensitivity"
    views = frozenset({"relevance"})
    values = MappingProxyType(
        {
            "taylor_sensitivity": "change of the loss to first order if one unit is set to 0, root mean square over "
            "units, >= 0; 0 where the loss is stationary in the scale of every unit",
            "taylor_share": "share of the units' squared effects that has the same sign in all samples, in [0, 1]; 0 "
            "where the loss is stationary in the scale of every unit",
            "fisher_sensitivity": "increase of the loss to second order if one unit is set to 0, mean over units, "
            ">= 0; 0 where nothing depends on the layer",
            "effective_unit_fraction": "participation ratio of Fisher sensitivities over units / width, in [0, 1]: 1 "
            "where all units matter alike, 1 / width where only one does",
            "negligible_fraction": f"units with less than {NEGLIGIBLE:.0%} of the mean Fisher sensitivity, in [0, 1]; "
            "0 where all units matter; the interval leaves open what these samples cannot tell",
        }
    )

    def workspace_bytes(self, sample: LayerSample) -> int:
        """A block of columns in float64 with its copy, and a few numbers for each row and unit."""
        return 16 * len(sample) * COLUMNS + 8 * 24 * (len(sample) + COLUMNS) + 16 * sample.features.shape[1]

    def estimate(self, sample: LayerSample) -> Mapping[str, Value]:
        """See ``values``."""
        rows = sample.relevance
        assert rows is not None
        width = rows.shape[1]
        if len(rows) < 3:
            return {}
        unit = unit_of(rows)
        squares = squared_norms(rows, unit)
        taylor, total = square_of_mean(rows, unit=unit), mean_of_rows(squares)
        found = {
            "taylor_sensitivity": in_unit(root(interval_of(taylor, low=0.0), 1 / width), unit),
            "fisher_sensitivity": in_unit(positive_interval(total.times(0.5 / width)), unit * unit),
        }
        if share := ratio(taylor, total, high=1.0):
            found["taylor_share"] = share
            found["negligible_fraction"] = _negligible(rows, squares, unit)
        square_of_sum = square_of_mean(squares[:, None])
        unequal = square_of_mean(rows, 2, unit).times(width).plus(square_of_sum, -1.0)  # 0 where all matter alike
        if odds := ratio(unequal, square_of_sum):
            found["effective_unit_fraction"] = complement(odds, len(rows))
        return found


def _negligible(rows: Tensor, squares: Tensor, unit: float) -> Value:
    """Counts units below the threshold; the interval is of simultaneous tests of all units (Bonferroni)."""
    count, width = rows.shape
    threshold = squares * (NEGLIGIBLE / width)
    quantile = _simultaneous_quantile(count - 1, width)
    below = surely_below = surely_above = 0
    for block in blocks(rows, unit):
        excess = block.square_().sub_(threshold[:, None])
        mean = excess.mean(0)
        reach = quantile * excess.sub_(mean).square_().sum(0).div_(count * (count - 1)).sqrt_()
        below += int((mean < 0).sum())
        surely_below += int((mean + reach < 0).sum())
        surely_above += int((mean - reach > 0).sum())
    low, high = surely_below / width, (width - surely_above) / width
    return Value(below / width, (high - low) / (2 * t_quantile(count - 1)), low, high)


def _simultaneous_quantile(degrees_of_freedom: int, num_tests: int) -> float:
    """Student's t at 0.025 / num_tests in either tail (Abramowitz & Stegun 26.7.5)."""
    z, v = -float(torch.special.ndtri(torch.tensor(0.025 / num_tests, dtype=torch.float64))), degrees_of_freedom
    return z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
