"""Squares of means without the bias that noise adds, and intervals of their ratios.

The square of a noisy mean is too large by its variance. The mean of products of *different* rows is not: a U-statistic
(Hoeffding 1948). Leaving out one row at a time has a closed form, so that the jackknife (Efron & Stein 1981) of
anything made of such squares costs one pass over the rows. Ends of intervals reach further on the side to which the
rows are skewed: squares of activations and gradients have long tails.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroexapt.analysis.estimators.base import Value
from neuroexapt.analysis.estimators.intervals import t_quantile

COLUMNS = 256  # that are taken to float64 at one time
ORDINARY = 2.0**-30, 2.0**30  # magnitudes whose sixteenth powers float64 holds
STEEPEST = 0.5  # acceleration times quantile: beyond, the expansion that it belongs to means nothing


@dataclass(frozen=True, slots=True, eq=False)
class Jackknifed:
    """A statistic of all rows, and of all but each one.

    Attributes:
        whole: Of all rows.
        without: float64 ``[n]``: without row i.
        noise: What a square of a mean would be too large by; 0 for statistics that are not squares of means.
        is_scale: Whether its spread grows in proportion to it, as for numbers that cannot be negative; else like its
            root.
    """

    whole: float
    without: Tensor
    noise: float = 0.0
    is_scale: bool = False

    @property
    def influence(self) -> Tensor:
        """What each row adds: float64 ``[n]``; the sum of squares is the variance of the statistic."""
        count = len(self.without)
        return (self.without.mean() - self.without) * math.sqrt((count - 1) / count)

    @property
    def quantile(self) -> float:
        """Of Student's t, see ``tail_quantile``."""
        return tail_quantile(self.influence, len(self.without) - 1)

    def plus(self, other: Jackknifed, factor: float = 1.0) -> Jackknifed:
        """Returns ``self + factor * other``, of the same rows."""
        noise = self.noise + factor * other.noise
        return Jackknifed(
            self.whole + factor * other.whole, self.without + factor * other.without, noise, self.is_scale
        )

    def times(self, factor: float) -> Jackknifed:
        """Returns it in another unit."""
        return Jackknifed(self.whole * factor, self.without * factor, self.noise * factor, self.is_scale)

    def stretch(self) -> float:
        """Returns by how much further up its interval has to reach, since a larger square of a mean varies more.

        The end is the M, with noise, for which M - that found is the quantile times the spread *there*.
        """
        found = self.whole + self.noise
        if self.noise <= 0 or found <= 0:
            return 1.0
        reach = self.quantile * float(self.influence.norm()) / found
        return 1 / (1 - min(reach, STEEPEST)) if self.is_scale else reach / 2 + math.sqrt(1 + reach * reach / 4)


def blocks(rows: Tensor, unit: float = 1.0) -> Iterator[Tensor]:
    """Yields copies of ``COLUMNS`` columns at a time as float64, divided by the unit: ``8 * n * COLUMNS`` bytes."""
    for start in range(0, rows.shape[1], COLUMNS):
        block = rows[:, start : start + COLUMNS].to(torch.float64, copy=True)
        yield block if unit == 1.0 else block.div_(unit)


def unit_of(rows: Tensor) -> float:
    """Returns a power of two in which powers of the rows neither overflow nor vanish; 1 for ordinary numbers."""
    largest = max(map(abs, map(float, torch.aminmax(rows)))) if rows.numel() else 0.0
    return 1.0 if largest == 0 or ORDINARY[0] < largest < ORDINARY[1] else 2.0 ** math.frexp(largest)[1]


def mean_of_rows(values: Tensor) -> Jackknifed:
    """Returns the mean of numbers ``[n]``."""
    count, total = len(values), values.double().sum()
    return Jackknifed(float(total) / count, (total - values.double()) / (count - 1))


def squared_norms(rows: Tensor, unit: float = 1.0) -> Tensor:
    """Returns the squared norm of each row ``[n, d]`` in the unit: float64 ``[n]``."""
    squares = torch.zeros(len(rows), dtype=torch.float64)
    for block in blocks(rows, unit):
        squares += block.square_().sum(1)
    return squares


def square_of_mean(rows: Tensor, power: int = 1, unit: float = 1.0) -> Jackknifed:
    """Returns the squared norm of the mean row, unbiased: it may be negative where the mean is near 0.

    Args:
        rows: ``[n, d]``, n >= 3.
        power: 1, or 2 for the mean of squared entries.
        unit: Of the entries, see ``unit_of``.
    """
    count = len(rows)
    squares = torch.zeros(count, dtype=torch.float64)
    along = torch.zeros(count, dtype=torch.float64)
    norm = 0.0
    for block in blocks(rows, unit):
        taken = block.square_() if power == 2 else block
        total = taken.sum(0)
        norm += float(total @ total)
        along += taken @ total
        squares += taken.square_().sum(1)
    pairs = norm - float(squares.sum())
    without = (pairs - 2 * (along - squares)) / ((count - 1) * (count - 2))
    whole = pairs / (count * (count - 1))
    return Jackknifed(whole, without, norm / count**2 - whole, power == 2)


def tail_quantile(influence: Tensor, degrees_of_freedom: int) -> float:
    """Returns Student's t with the degrees of freedom of a variance that was measured on rows with long tails.

    The variance of a variance is (kurtosis - 1) / n of its square; that of v degrees of freedom is 2 / v.
    """
    variance, count = float(influence.square().mean()), len(influence)
    kurtosis = float((influence**4).mean()) / variance**2 if variance > 0 else 3.0
    return t_quantile(max(1, min(degrees_of_freedom, round(2 * count / max(kurtosis - 1, 1.0)))))


def skewed(quantile: float, influence: Tensor) -> tuple[float, float]:
    """Returns the quantiles that the lower and the upper end have to reach for, each at least the one given.

    The ends of nonparametric ABC intervals (DiCiccio & Efron 1992, section 3), where they are further out.

    Args:
        quantile: Of a symmetric interval.
        influence: Of each row on the statistic, mean 0.
    """
    norm = float(influence.norm())
    acceleration = float((influence**3).sum()) / (6 * norm**3) if norm > 0 else 0.0
    ends = []
    for towards in (-acceleration, acceleration):
        reach = quantile + max(towards, 0.0)
        ends.append(reach / (1 - min(max(towards, 0.0) * reach, STEEPEST)) ** 2)
    return ends[0], ends[1]


def interval_of(statistic: Jackknifed, *, low: float = -math.inf, high: float = math.inf) -> Value:
    """Returns the statistic with its interval, clipped to what is possible."""
    spread, value = float(statistic.influence.norm()), min(max(statistic.whole, low), high)
    down, up = skewed(statistic.quantile, statistic.influence)
    up = max(up, statistic.quantile * statistic.stretch())
    ends = (statistic.whole - down * spread, statistic.whole + up * spread)
    return Value(value, spread, *(min(max(end, low), high) for end in ends))


def positive_interval(statistic: Jackknifed) -> Value:
    """Returns a mean of numbers that are not negative, with an interval on the scale of its logarithm."""
    spread, value = float(statistic.influence.norm()), max(statistic.whole, 0.0)
    if value == 0.0:
        return Value(0.0, spread, 0.0, statistic.quantile * spread)
    down, up = (quantile * spread / value for quantile in skewed(statistic.quantile, statistic.influence))
    upper = math.exp(up) if up < 1 else math.e * up  # beyond e-fold in proportion, not in powers
    return Value(value, spread, value * math.exp(-down), value * upper)


def in_unit(value: Value, unit: float) -> Value:
    """Returns what was measured in a unit, in units of 1."""
    return Value(value.value * unit, value.spread * unit, value.low * unit, value.high * unit)


def root(square: Value, factor: float = 1.0) -> Value:
    """Returns the square root of ``factor`` times an estimate that is not negative, by the delta method."""
    value, low, high = (math.sqrt(factor * x) for x in (square.value, square.low, square.high))
    return Value(value, factor * square.spread / (2 * value) if value else high, low, high)


def ratio(top: Jackknifed, bottom: Jackknifed, *, high: float = math.inf) -> Value | None:
    """Returns top / bottom, both not negative in truth, with Fieller's interval.

    The interval holds every ratio B for which top - B * bottom cannot be told from 0 (Fieller 1954). It has no upper
    end where the bottom cannot be told from 0; the value is then that of a bottom of at least one standard error, so
    that it stays finite, and its spread is infinite.

    Args:
        top: Numerator.
        bottom: Denominator, of the same rows.
        high: The true ratio is never above.

    Returns:
        ``None`` where the bottom is 0 without any spread.
    """
    t, u = max(top.whole, 0.0), max(bottom.whole, 0.0)
    least = max(u, float(bottom.influence.norm()))
    if least <= 0.0:
        return None
    value = t / least
    combined = top.plus(bottom, -value)
    error = combined.influence
    down, up = skewed(combined.quantile, error)
    lower, _ = _fieller(t, u, top.influence * down, bottom.influence * (down * bottom.stretch()))
    _, upper = _fieller(t, u, top.influence * (up * top.stretch()), bottom.influence * up)
    spread = float(error.norm()) / u if math.isfinite(upper) else math.inf
    value = min(value, high)
    return Value(value, spread, min(lower, value), min(max(upper, value), high))


def complement(odds: Value, num_rows: int) -> Value:
    """Returns 1 / (1 + odds), in [0, 1]."""
    low, high = 1 / (1 + odds.high), 1 / (1 + odds.low)
    return Value(1 / (1 + odds.value), (high - low) / (2 * t_quantile(num_rows - 1)), low, high)


def _fieller(t: float, u: float, top: Tensor, bottom: Tensor) -> tuple[float, float]:
    """The ratios B >= 0 with (t - B u)^2 <= |top - B bottom|^2: between the roots of a B^2 - 2 b B + c."""
    a, b, c = u * u - float(bottom @ bottom), t * u - float(top @ bottom), t * t - float(top @ top)
    reach = math.sqrt(max(b * b - a * c, 0.0))
    lower = max(c / (b + reach), 0.0) if b + reach > 0 else 0.0
    return lower, (b + reach) / a if a > 0 else math.inf
