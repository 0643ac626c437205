"""Paired differences over seeds: mean and 95 % interval of Student's t; and plain means with their deviation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of paired differences, with half the width of its interval; infinite for a single pair."""

    mean: float
    half_width: float
    num_pairs: int

    @property
    def is_effect(self) -> bool:
        """Whether the interval excludes 0."""
        return abs(self.mean) > self.half_width

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ± {self.half_width:.2f}" if math.isfinite(self.half_width) else f"{self.mean:+.2f}"


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Difference | None:
    """Returns first - second over the seeds that both have, or nothing where there are none.

    The half width is t(0.975, n - 1) s / sqrt(n), s the standard deviation of the differences.
    """
    differences = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
    if not differences:
        return None
    n = len(differences)
    if n == 1:
        return Difference(differences[0], math.inf, 1)
    quantile = float(student.ppf(0.5 + CONFIDENCE / 2, n - 1))
    return Difference(statistics.mean(differences), quantile * statistics.stdev(differences) / math.sqrt(n), n)


def mean_sd(values: Sequence[float], digits: int = 2) -> str:
    """Returns ``mean ± sd``; the mean alone of a single value."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
