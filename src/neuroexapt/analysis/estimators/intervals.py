"""Standard errors and intervals from independent rows.

The delete-a-group jackknife (Kott 2001; Efron & Stein 1981): the estimate is repeated without each of G equal groups of
rows, and the spread of the repetitions tells the spread of the whole, for any smooth statistic of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from neuroexapt.analysis.estimators.base import Value

GROUPS = 16  # of rows, each left out once
MARGIN = 1.15  # on Student's quantile: statistics are skewed, and an interval is to hold at least 95 %, not about 95 %
# Student's t, 97.5 %: with the degrees of freedom that the groups leave
_T_QUANTILES = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145]
_T_QUANTILES += [2.131, 2.120, 2.110, 2.101, 2.093, 2.086]


def t_quantile(degrees_of_freedom: int) -> float:
    """Returns the 97.5 % quantile of Student's t, from a table up to 20 and by an expansion beyond."""
    if degrees_of_freedom < 1:
        return math.inf
    if degrees_of_freedom <= len(_T_QUANTILES):
        return _T_QUANTILES[degrees_of_freedom - 1]
    z, v = 1.959964, degrees_of_freedom
    return z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)


def groups_count(num_rows: int) -> int:
    """Returns how many groups of rows are left out in turn; row i is in group i modulo this."""
    return min(GROUPS, num_rows)


def groups_of(num_rows: int) -> list[Tensor]:
    """Returns, for each group, the rows that stay when it is left out: int64 indices; groups are interleaved."""
    count = groups_count(num_rows)
    rows = torch.arange(num_rows)
    return [rows[rows % count != group] for group in range(count)]


def interval(
    value: float, spread: float, degrees_of_freedom: int, *, low: float = -math.inf, high: float = math.inf
) -> Value:
    """Returns the value with its Student interval, ``MARGIN`` wider, clipped to what is possible."""
    reach = MARGIN * t_quantile(degrees_of_freedom) * spread
    clipped = min(max(value, low), high)
    return Value(clipped, spread, min(max(value - reach, low), clipped), max(min(value + reach, high), clipped))


def standard_error(values: Tensor) -> float:
    """Returns that of the mean of independent numbers ``[n]``; infinite for a single one."""
    return float(values.double().std()) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def mean_of(values: Tensor, *, low: float = -math.inf, high: float = math.inf) -> Value:
    """Returns the mean of independent numbers ``[n]`` with its interval."""
    return interval(float(values.double().mean()), standard_error(values), len(values) - 1, low=low, high=high)


def influenced(value: float, influence: Tensor, *, low: float = -math.inf, high: float = math.inf) -> Value:
    """Returns a smooth statistic with its interval (the infinitesimal jackknife, Jaeckel 1972).

    Args:
        value: Of the statistic.
        influence: ``[n]``: the derivative of the statistic by the weight of each row, times n; of mean 0.
        low: The true value is never below.
        high: Nor above.
    """
    return interval(value, standard_error(influence), len(influence) - 1, low=low, high=high)


def jackknifed(
    whole: float, repeated: Sequence[float], *, doubt: float = 0.0, low: float = -math.inf, high: float = math.inf
) -> Value:
    """Returns a statistic without its bias of order 1/n (Quenouille 1956), and its interval.

    Args:
        whole: From all rows.
        repeated: From the rows without each of some equal groups (``groups_of``).
        doubt: Share of the bias that its correction may leave; widens the interval.
        low: The true value is never below.
        high: Nor above.
    """
    count, mean = len(repeated), math.fsum(repeated) / len(repeated)
    value = count * whole - (count - 1) * mean
    spread = math.sqrt((count - 1) / count * math.fsum((x - mean) ** 2 for x in repeated))
    return interval(value, math.hypot(spread, doubt * (value - whole)), count - 1, low=low, high=high)
