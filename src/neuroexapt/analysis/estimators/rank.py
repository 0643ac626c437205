"""How many independent directions the units of a layer span."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from neuroexapt.analysis.estimators.base import Estimator, Value
from neuroexapt.analysis.estimators.spectrum import entropy_bounds, spectrum_bytes, square_correlation
from neuroexapt.analysis.estimators.standardised import StandardRows
from neuroexapt.analysis.watching import LayerSample


class Rank(Estimator):
    """Effective rank and participation ratio of the correlation matrix of the units that vary.

    With p its eigenvalues over their sum, the effective rank is exp(-sum p log p) (Roy & Vetterli 2007, equation 5) and
    the participation ratio 1 / sum p^2 = d / (1 + (d - 1) mean r^2). The correlation matrix and not the covariance: the
    scale of a unit is undone by the next layer's weights for nothing. The effective rank lies between two bounds
    (``spectrum.py``), and its value is their geometric mean; with fewer rows than units the interval is as wide as what
    rows leave open.
    """

    name = "rank"
    views = frozenset({"features"})
    values = MappingProxyType(
        {
            "effective_rank": "directions that the units span, weighed by entropy, in [1, units]; all of them where "
            "units are uncorrelated",
            "effective_rank_fraction": "the same over the units that vary, in [0, 1]: 1 for uncorrelated units",
            "participation_ratio": "directions that the units span, weighed by variance, in [1, units]; all of them "
            "where units are uncorrelated",
            "participation_fraction": "the same over the units that vary, in [0, 1]: 1 for uncorrelated units",
        }
    )

    def workspace_bytes(self, sample: LayerSample) -> int:
        """The smaller of the Gram matrix and the covariance, a few times."""
        return rank_bytes(sample)

    def estimate(self, sample: LayerSample) -> Mapping[str, Value]:
        """See ``values``."""
        rows = StandardRows.of(sample.features)
        if rows.num_units < 2:
            return {}
        effective, participation = ranks(sample, rows)
        return {
            "effective_rank": effective,
            "effective_rank_fraction": scaled(effective, 1 / rows.num_units),
            "participation_ratio": participation,
            "participation_fraction": scaled(participation, 1 / rows.num_units),
        }


def ranks(sample: LayerSample, rows: StandardRows) -> tuple[Value, Value]:
    """Returns effective rank and participation ratio, which the sample keeps."""
    return sample.once("ranks", lambda: _ranks(sample, rows))


def _ranks(sample: LayerSample, rows: StandardRows) -> tuple[Value, Value]:
    d = rows.num_units
    squares = square_correlation(sample, rows)
    participation = Value(
        _participation(d, squares.value),
        _participation(d, squares.value) ** 2 * (d - 1) / d * squares.spread,
        _participation(d, squares.high),
        _participation(d, squares.low),
    )
    below, above = entropy_bounds(rows)
    top = math.log(d)
    at_least = max(below.value, math.log(participation.value))
    value = min((at_least + above.value) / 2, top)
    low = min(max(below.low, math.log(participation.low)), value)
    high = max(min(above.high, top), value)
    spread = (math.exp(high) - math.exp(low)) / 4  # an interval is about four standard errors wide
    return Value(math.exp(value), spread, math.exp(low), math.exp(high)), participation


def _participation(num_units: int, mean_square: float) -> float:
    return num_units / (1 + (num_units - 1) * mean_square)


def scaled(value: Value, factor: float) -> Value:
    """Returns the estimate of a multiple."""
    return Value(value.value * factor, value.spread * factor, value.low * factor, value.high * factor)


def rank_bytes(sample: LayerSample) -> int:
    """What ``ranks`` holds at most."""
    n, width = sample.features.shape
    return spectrum_bytes(n, width) + 100 * n
