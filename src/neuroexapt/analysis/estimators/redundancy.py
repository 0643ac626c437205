"""How much of a layer's width other units of it repeat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from neuroexapt.analysis.estimators.base import Estimator, Value
from neuroexapt.analysis.estimators.intervals import influenced
from neuroexapt.analysis.estimators.rank import rank_bytes, ranks
from neuroexapt.analysis.estimators.spectrum import factor
from neuroexapt.analysis.estimators.standardised import StandardRows, block_bytes, block_size
from neuroexapt.analysis.watching import LayerSample

DUPLICATE = 0.95  # |r| from which two units are the same for most purposes
_DOUBT = 3.0  # standard errors of Fisher's z for the closest of many partners
RIDGES = (1e-4, 1e-2, 1e-1, 1.0, 10.0)  # over n: a unit has variance 1
_ROUNDING = 1e-5  # of float32
_MOST_UNITS = 0.8  # of the rows: with more, what unlimited rows could predict cannot be bounded


class Redundancy(Estimator):
    """Rank that is missing, units that have a double, and how well units are predicted from all others.

    Two units are near-duplicates where their |r| exceeds 0.95; the interval counts those that do so by three standard
    errors of Fisher's z more, or less. Predictability is R^2 on rows left out one at a time, by ridge regression on all
    other units in closed form (Allen 1974, PRESS), with the penalty that is best for the layer. It is what unlimited
    rows allow at least; at most it is the in-sample R^2 of least squares, adjusted for the number of units (Ezekiel
    1930), and 1 where there are about as many units as rows.
    """

    name = "redundancy"
    views = frozenset({"features"})
    values = MappingProxyType(
        {
            "redundancy": "1 - effective rank / units that vary, in [0, 1]: 0 for uncorrelated units",
            "near_duplicate_fraction": "units that vary with |r| > 0.95 to another, in [0, 1]: 0 for independent units",
            "predictability": "R^2 of a unit from all others by ridge on rows left out, mean over units that vary, in "
            "[0, 1]: 0 for independent units",
        }
    )

    def workspace_bytes(self, sample: LayerSample) -> int:
        """The spectrum's, or a few blocks."""
        n, width = sample.features.shape
        size = block_size(n, width)
        pairs = 2 * block_bytes(n, width) + 4 * 2 * size**2
        predicting = block_bytes(n, width) + 4 * (2 * n * min(n, width) + 3 * (n + min(n, width)) * size)
        return max(rank_bytes(sample), pairs, predicting) + 100 * n

    def estimate(self, sample: LayerSample) -> Mapping[str, Value]:
        """See ``values``."""
        rows = StandardRows.of(sample.features)
        if rows.num_units < 2:
            return {}
        effective, _ = ranks(sample, rows)
        fraction = 1 / rows.num_units
        return {
            "redundancy": Value(
                max(1 - effective.value * fraction, 0.0),
                effective.spread * fraction,
                max(1 - effective.high * fraction, 0.0),
                1 - effective.low * fraction,
            ),
            "near_duplicate_fraction": _near_duplicates(rows),
            "predictability": _predictability(rows),
        }


def _near_duplicates(rows: StandardRows) -> Value:
    closest = torch.zeros(rows.num_units)
    for pair in rows.correlations():
        pair.r.abs_()
        closest[pair.i] = torch.maximum(closest[pair.i], pair.r.amax(1))
        closest[pair.j] = torch.maximum(closest[pair.j], pair.r.amax(0))
    doubt = _DOUBT / math.sqrt(max(rows.num_rows - 3, 1))
    certain, likely, possible = (
        float((closest > math.tanh(math.atanh(DUPLICATE) + shift)).double().mean()) for shift in (doubt, 0.0, -doubt)
    )
    return Value(likely, (possible - certain) / 4, certain, possible)


@dataclass(frozen=True, slots=True)
class _Predictions:
    """All units predicted from all others by ridge regression, in closed form.

    For the kernel ``K = ZZ' + penalty`` without the mean and its inverse M, the inverse without unit y is
    ``M + M y y'M / (1 - y'My)``, and a row's error when it is left out is (inverse y) over the inverse's diagonal
    (Rifkin & Lippert 2007, section 3). Differences of nearly equal numbers are written as what they are made of.

    Attributes:
        rows: Z.
        left: U of ``Z = U diag(sqrt(own)) V'``.
        own: Eigenvalues of ``ZZ'``.
        penalty: Of the squared weights.
    """

    rows: StandardRows
    left: Tensor
    own: Tensor
    penalty: float

    def unexplained(self, is_left_out: bool) -> tuple[float, Tensor]:
        """Returns the mean squared error, in variances of a unit, and the influence of each row on it: ``[n]``.

        Args:
            is_left_out: Whether each row is predicted from the others alone, or from all.
        """
        n, d = self.rows.num_rows, self.rows.num_units
        shrunk = (self.own + self.penalty).reciprocal_()
        unreached = 1 - 1 / n - self.left.square().sum(1) if len(self.own) < n - 1 else torch.zeros(n)
        diagonal = (self.left.square() @ shrunk).add_(unreached.clamp_(min=0).div_(self.penalty))
        errors, total = torch.zeros(n, dtype=torch.float64), 0.0
        for _, z in self.rows.blocks():
            inner = self.left.T @ z
            solved = self.left @ (inner * shrunk[:, None])
            inner.square_().div_(self.own[:, None])
            if len(self.own) == d:
                inner.div_(inner.sum(0))  # of a whole basis
            free = (1 - inner.sum(0)).clamp_(min=0).add_((shrunk * self.penalty) @ inner)
            solved.div_(free)
            if is_left_out:
                solved.div_((solved.square() * free).add_(diagonal[:, None]))
            else:
                solved.mul_(self.penalty)
            solved.square_()
            unexplained = solved.mean(0)
            errors += solved.sum(1)
            total += float(unexplained.sum(dtype=torch.float64))
            errors -= z.square_() @ unexplained
        return total / d, errors / d


def _predictability(rows: StandardRows) -> Value:
    n, d = rows.num_rows, rows.num_units
    whole = factor(rows)
    left, own = whole.left, whole.eigenvalues * n
    best: Value | None = None
    for ridge in RIDGES:
        unexplained, influence = _Predictions(rows, left, own, ridge * n).unexplained(is_left_out=True)
        found = influenced(1 - unexplained, -influence, low=0.0, high=1.0)
        best = found if best is None or found.value > best.value else best
    assert best is not None
    high = 1.0
    if d <= _MOST_UNITS * n:
        unexplained, influence = _Predictions(rows, left, own, RIDGES[0] * n).unexplained(is_left_out=False)
        adjusted = n / (n - d)
        high = influenced(1 - unexplained * adjusted, influence * adjusted, low=0.0, high=1.0).high
    return Value(best.value, best.spread, max(best.low - _ROUNDING, 0.0), min(max(best.value, high) + _ROUNDING, 1.0))
