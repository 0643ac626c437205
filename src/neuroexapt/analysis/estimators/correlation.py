"""How strongly the units of a layer are correlated, pair by pair."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch

from neuroexapt.analysis.estimators.base import Estimator, Value
from neuroexapt.analysis.estimators.intervals import influenced
from neuroexapt.analysis.estimators.spectrum import spectrum_bytes, square_correlation
from neuroexapt.analysis.estimators.standardised import StandardRows, block_bytes, block_size
from neuroexapt.analysis.watching import LayerSample

WINDOW = 1.5  # standard errors of r, within which |r| is replaced by a parabola


class Correlation(Estimator):
    """Pearson's r over all pairs of units that vary, exact over the rows, without the bias of a finite sample.

    n independent rows of independent units show a mean r^2 of 1/(n - 1), which is taken off, and a mean |r| of
    sqrt(2 / (pi (n - 1))). An absolute value cannot be estimated without bias, but between two bounds. Below: with
    s = 1 / sqrt(n - 1), |r| is replaced within ``1.5 s`` of 0 by ``(r^2 - s^2) / (1.5 s)`` (a parabola at the kink, Cai
    & Low 2011, shifted so that its mean over independent units is exactly 0); its mean is nowhere above the true |r|,
    by half an s at most, and the same from ``4 s`` on. That is the value. Above: the plain mean |r|, and the root of
    the mean r^2. The interval reaches from the one to the other.
    """

    name = "correlation"
    views = frozenset({"features"})
    values = MappingProxyType(
        {
            "mean_absolute_correlation": "mean |r| over pairs of units that vary, in [0, 1]: 0 for independent units",
            "mean_square_correlation": "mean r^2 over pairs of units that vary, in [0, 1]: 0 for independent units",
        }
    )

    def workspace_bytes(self, sample: LayerSample) -> int:
        """A few blocks of the correlation matrix, or the matrix of the squares, whichever is larger."""
        n, width = sample.features.shape
        side = block_size(n, width)
        pairs = 2 * block_bytes(n, width) + 4 * 6 * side * side + 100 * n
        return max(pairs, spectrum_bytes(n, width))

    def estimate(self, sample: LayerSample) -> Mapping[str, Value]:
        """See ``values``."""
        rows = StandardRows.of(sample.features)
        if rows.num_units < 2:
            return {}
        squares = square_correlation(sample, rows)
        return {
            "mean_absolute_correlation": _mean_absolute(rows, math.sqrt(squares.high)),
            "mean_square_correlation": squares,
        }


def _mean_absolute(rows: StandardRows, highest: float) -> Value:
    """Estimates the mean |r|; ``highest`` bounds it."""
    error = 1 / math.sqrt(rows.num_rows - 1)
    plain = corrected = 0.0
    influence = torch.zeros(rows.num_rows, dtype=torch.float64)
    on_variance = torch.zeros(rows.num_units)  # of each unit: what scaling it adds to the influence
    for pair in rows.correlations():
        is_near = pair.r.abs() <= WINDOW * error
        slopes = torch.where(is_near, pair.r / (WINDOW * error / 2), pair.r.sign())
        products = slopes * pair.r
        size = float(products.sum(dtype=torch.float64))
        near = float(products[is_near].sum(dtype=torch.float64))
        count = int(is_near.sum()) - (len(pair.r) if pair.weight == 1 else 0)
        plain += pair.weight * float(pair.r.abs().sum(dtype=torch.float64))
        corrected += pair.weight * (size - near / 2 - count * error / WINDOW)
        influence += pair.weight * (pair.left @ slopes).mul_(pair.right).sum(1)
        on_variance[pair.i] += products.sum(1)
        if pair.weight == 2:
            on_variance[pair.j] += products.sum(0)
    for units, z in rows.blocks():
        influence -= z.square_() @ on_variance[units]
    count = rows.num_units * (rows.num_units - 1)
    below = influenced(corrected / count, influence / count, low=0.0, high=1.0)
    above = influenced(plain / count, influence / count, low=0.0, high=1.0)
    high = max(min(above.high, highest), below.low)
    return Value(min(below.value, high), below.spread, below.low, high)
