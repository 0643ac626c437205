"""The slope of a short, noisy curve, which no single outlier can tilt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist, median


@dataclass(frozen=True, slots=True)
class Slope:
    """A slope per step with its confidence interval."""

    value: float
    low: float
    high: float


def theil_sen(values: Sequence[float], confidence: float) -> Slope:
    """Returns the median of the slopes of all pairs of points (Theil 1950; Sen 1968).

    The interval is Sen's: with N slopes of n points, its ends are the slopes of rank ``(N - z s) / 2`` from either end,
    where ``s^2 = n (n - 1) (2 n + 5) / 18`` is the variance of Kendall's S. Ranks are rounded outwards, so it holds the
    slope at least as often as asked, whatever the distribution of the noise; except that with fewer slopes than that
    takes, three points above all, it is the range of all slopes (of three points 67 %, of four 92 %).

    Args:
        values: At least two finite numbers, equally far apart.
        confidence: Of the interval, in (0, 1).
    """
    slopes = sorted((values[j] - values[i]) / (j - i) for i, j in combinations(range(len(values)), 2))
    n = len(values)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    rank = max(math.floor((len(slopes) - reach) / 2), 1)
    return Slope(median(slopes), slopes[rank - 1], slopes[-rank])
