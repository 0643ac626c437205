"""A linear probe of the label whose every row is judged by a probe that was fitted without it, in closed form.

Linear discriminant analysis (Fisher 1936; Hastie et al., The Elements of Statistical Learning, 4.3) is a softmax of
linear scores, and where classes are near to Gaussian it needs fewer rows than logistic regression (Efron 1975). Taking
one row out changes the covariance within classes by one outer product, so that the inverse without it is known from the
inverse with it (Sherman & Morrison 1950): all rows are held out once for the price of one fit. The ridge (pseudo-rows
of white noise) and the scale of the scores (a temperature, Guo et al. 2017) are chosen on held-out rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroexapt.analysis.estimators.base import Value
from neuroexapt.analysis.estimators.intervals import standard_error, t_quantile
from neuroexapt.analysis.watching import LayerSample

RIDGES = (0.1, 1.0, 4.0)  # pseudo-rows for each column; they weigh less the more rows there are
SCALES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # 0 is the class frequencies alone
GROUPS = 5  # a row's ridge and scale are chosen on the other groups
MIN_ROWS = 8
ROWS_PER_CLASS = 4  # with fewer nothing is said from above
_NUMBERS = 1 << 15  # logits at a time
_FLAT = 1e-6  # of the largest standard deviation: a column that varies less is left out


@dataclass(frozen=True, slots=True, eq=False)
class Discriminant:
    """Linear discriminants, fitted to rows; with another ridge without being fitted again.

    Attributes:
        center: float64 ``[d]``.
        turn: float64 ``[d, d]``: standardises a row and turns it to the axes of the covariance within classes.
        scatter: float64 ``[d]``: sums of squares along these.
        means: float64 ``[K, d]``, turned; drawn to the centre as if one more row were there.
        counts: float64 ``[K]``.
    """

    center: Tensor
    turn: Tensor
    scatter: Tensor
    means: Tensor
    counts: Tensor

    @staticmethod
    def fitted(rows: Tensor, classes: Tensor, num_classes: int) -> Discriminant:
        """Fits to rows ``[n, d]`` with classes ``[n]`` below ``num_classes``."""
        center, unit, within, means, counts = _moments(rows, classes, num_classes)
        scatter, axes = torch.linalg.eigh(within)
        return Discriminant(center, unit[:, None] * axes, scatter.clamp(min=0), means @ axes, counts)

    def turned(self, rows: Tensor) -> Tensor:
        """Returns rows in the coordinates of ``means``."""
        return (rows - self.center) @ self.turn

    def scores(self, turned: Tensor, ridge: float) -> Tensor:
        """Returns log p(row | class) up to what all classes share: ``[n, K]``."""
        inverse, strength = self._inverse(ridge)
        quadratic = (self.means.square() * inverse).sum(1)
        return strength * ((turned * inverse) @ self.means.T - quadratic / 2)

    def left_out_scores(self, turned: Tensor, classes: Tensor, ridge: float) -> Tensor:
        """Returns the same for the rows of the fit, each by the fit without it.

        With M the scatter plus ridge, u the row minus the mean of its class and a = n_c / (n_c - 1), the scatter
        without the row is M - a u u', and v' (M - a u u')^-1 v = v' M^-1 v + a (u' M^-1 v)^2 / (1 - a u' M^-1 u).
        """
        inverse, strength = self._inverse(ridge)
        counts = self.counts[classes]
        others = (counts - 1).clamp(min=1)
        offset = turned - self.means[classes] * ((counts + 1) / counts)[:, None]  # u, from the mean itself
        weighted = offset * inverse
        lever = (weighted * offset).sum(1)
        factor = torch.where(counts > 1, counts / others, 0.0)
        factor = factor / (1 - factor * lever)
        quadratic = (self.means.square() * inverse).sum(1)
        own = (weighted * turned).sum(1)
        cross = own[:, None] - weighted @ self.means.T  # u' M^-1 (row - mean of each class)
        distances = quadratic - 2 * (turned * inverse) @ self.means.T + factor[:, None] * cross.square()
        mean = (self.means[classes] * (counts + 1)[:, None] - turned) / counts[:, None]  # of its class without the row
        within = ((mean - 2 * turned) * mean * inverse).sum(1) + factor * (own - (weighted * mean).sum(1)).square()
        distances.scatter_(1, classes[:, None], within[:, None])
        return -(strength - 1) / 2 * distances

    def _inverse(self, ridge: float) -> tuple[Tensor, float]:
        """The inverse of scatter and ridge, and the rows that they stand for."""
        added = ridge * len(self.scatter)
        return 1 / (self.scatter + added), float(self.counts.sum()) - len(self.counts) + added


def log_ratios(rows: Tensor, classes: Tensor, num_classes: int, choice: tuple[float, float], asked: Tensor) -> Tensor:
    """Returns log p(class | row) / p(class) by discriminants of one ridge and scale: ``[m, K]``.

    Args:
        rows: That they are fitted to, float64 ``[n, d]``.
        classes: Of these, below ``num_classes``.
        num_classes: K.
        choice: Ridge and scale.
        asked: Rows that are looked at, ``[m, d]``.
    """
    center, unit, within, means, counts = _moments(rows, classes, num_classes)
    added = choice[0] * len(center)
    within.diagonal().add_(added)
    weights = torch.cholesky_solve(means.T, torch.linalg.cholesky(within))
    scores = ((asked - center) * unit) @ weights - (means * weights.T).sum(1) / 2
    prior = _log_frequencies(counts)
    return (scores * (choice[1] * (len(rows) - num_classes + added)) + prior).log_softmax(1) - prior


def _moments(rows: Tensor, classes: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Centre, units (0 for a flat column), scatter within classes in these, means in these, and counts."""
    center, deviation = rows.mean(0), rows.std(0)
    is_flat = deviation <= _FLAT * deviation.max()
    unit = torch.where(is_flat, 0.0, 1 / deviation.where(~is_flat, torch.ones_like(deviation)))
    scaled = (rows - center) * unit
    counts = torch.bincount(classes, minlength=num_classes).to(rows)
    sums = torch.zeros(num_classes, rows.shape[1], dtype=rows.dtype).index_add_(0, classes, scaled)
    scaled -= (sums / counts.clamp(min=1)[:, None])[classes]
    return center, unit, scaled.T @ scaled, sums / (counts + 1)[:, None], counts


def _log_frequencies(counts: Tensor) -> Tensor:
    """The logarithm of the frequency of each class, of which half a row more is taken to be there."""
    return ((counts + 0.5) / (counts.sum() + 0.5 * len(counts))).log()


@dataclass(frozen=True, slots=True, eq=False)
class LabelProbe:
    """What a linear probe finds out about the label, in nats for each row: log p(label | row) / p(label).

    Attributes:
        entropy: Of the label, H(Y), corrected for the sample size (Miller 1955).
        surprise: float64 ``[n]``: minus the logarithm of the frequency of each row's class.
        held_out: float64 ``[n]``: by the probe that was fitted without the row. Its mean is too low by what the probe
            would gain from more rows.
        halfway: float64 ``[n]``: the mean of what the probe says without and with the row, at the scale where that is
            largest. With the row it is too high by about as much as without it is too low, so the mean has an error of
            second order only (the argument of Akaike 1974).
        num_classes: Seen in these rows.
        held_out_choice: Ridge and scale that are best on held-out rows.
        halfway_choice: Those of ``halfway``.
    """

    entropy: float
    surprise: Tensor
    held_out: Tensor
    halfway: Tensor
    num_classes: int
    held_out_choice: tuple[float, float]
    halfway_choice: tuple[float, float]

    def information(self) -> Value:
        """Returns the held-out value with the interval of what unlimited rows would give, within [0, H(Y)]."""
        held, halfway = self.means
        spread, reach = self.spread, t_quantile(len(self.held_out) - 1)
        value = min(max(held, 0.0), self.entropy)
        above = 2 * halfway - held + reach * max(spread, standard_error(self.halfway))
        too_few = len(self.held_out) < ROWS_PER_CLASS * self.num_classes
        high = self.most if too_few else min(above, self.most)
        return Value(value, spread, min(max(held - reach * spread, 0.0), value), max(high, value))

    @property
    def means(self) -> tuple[float, float]:
        """Means of ``held_out`` and ``halfway``, with the entropy corrected."""
        correction = self.entropy - float(self.surprise.mean())
        return float(self.held_out.mean()) + correction, float(self.halfway.mean()) + correction

    @property
    def spread(self) -> float:
        """Standard error of the first."""
        return standard_error(self.held_out)

    @property
    def most(self) -> float:
        """The largest that the entropy of the label may be, by its own error."""
        reach = t_quantile(len(self.surprise) - 1) * standard_error(self.surprise)
        return min(math.log(self.num_classes), self.entropy + reach + (self.num_classes - 1) / len(self.surprise))


def probe_bytes(num_rows: int, num_columns: int, num_classes: int) -> int:
    """Returns the most that ``fit_probe`` holds besides its arguments."""
    choices = 3 * len(RIDGES) * len(SCALES) + 24
    searched = 3 * _scales_at_once(num_rows * num_classes) * num_rows * num_classes
    fitted = num_rows * (6 * num_columns + choices + 6 * num_classes) + 4 * num_columns**2
    return 8 * (fitted + searched)


def _scales_at_once(size: int) -> int:
    """How many scales are looked at together, for so many scores: the fewer the more scores there are."""
    return min(len(SCALES), max(1, _NUMBERS // size))


def _of_own(prior: Tensor, scores: Tensor, classes: Tensor, scales: tuple[float, ...]) -> Tensor:
    """log p(class of the row | row) at some scales: ``[scales, n]``."""
    logits = torch.tensor(scales, dtype=scores.dtype)[:, None, None] * scores + prior
    own = logits.gather(2, classes[:, None].expand(len(scales), -1, 1))[:, :, 0]
    return own.sub_(logits.logsumexp(2))


def fit_probe(rows: Tensor, classes: Tensor, num_classes: int) -> LabelProbe:
    """Fits the probe and judges it.

    Args:
        rows: float64 ``[n, d]``.
        classes: int64 ``[n]``, below ``num_classes``; at least two of them occur.
        num_classes: K.
    """
    fit, count = Discriminant.fitted(rows, classes, num_classes), len(rows)
    turned, at_once = fit.turned(rows), _scales_at_once(count * num_classes)
    surprise = -(fit.counts[classes] / count).log()
    prior = _log_frequencies(fit.counts)
    prior_without = (fit.counts + 0.5 - F.one_hot(classes, num_classes)).log()
    without_row, with_row = rows.new_empty(2, len(RIDGES) * len(SCALES), count)
    for index, ridge in enumerate(RIDGES):
        without, whole = fit.left_out_scores(turned, classes, ridge), fit.scores(turned, ridge)
        for start in range(0, len(SCALES), at_once):
            part = slice(index * len(SCALES) + start, index * len(SCALES) + min(start + at_once, len(SCALES)))
            without_row[part] = _of_own(prior_without, without, classes, SCALES[start : start + at_once])
            with_row[part] = _of_own(prior, whole, classes, SCALES[start : start + at_once])
    choices = [(ridge, scale) for ridge in RIDGES for scale in SCALES]
    held_out = choices[int(without_row.sum(1).argmax())]
    halfway = with_row.add_(without_row).div_(2)
    best = int(halfway.sum(1).argmax())
    occurring = int((fit.counts > 0).sum())
    return LabelProbe(
        entropy=min(float(surprise.mean()) + (occurring - 1) / (2 * count), math.log(occurring)),
        surprise=surprise,
        held_out=_cross_chosen(without_row) + surprise,
        halfway=halfway[best] + surprise,
        num_classes=occurring,
        held_out_choice=held_out,
        halfway_choice=choices[best],
    )


def probe_of(sample: LayerSample) -> LabelProbe | None:
    """Returns the probe of a layer's pooled rows; nothing where there are too few, or only one class.

    A sample keeps it: three numbers a row.
    """
    return sample.once("label probe", lambda: _probe_of(sample))


def _probe_of(sample: LayerSample) -> LabelProbe | None:
    assert sample.pooled is not None
    assert sample.targets is not None
    classes, num_classes = numbered(sample.targets)
    if len(classes) < MIN_ROWS or num_classes < 2:
        return None
    return fit_probe(sample.pooled.double(), classes, num_classes)


def numbered(targets: Tensor) -> tuple[Tensor, int]:
    """Returns the classes that occur numbered from 0 on, and how many there are."""
    known, classes = torch.unique(targets, return_inverse=True)
    return classes, len(known)


def _cross_chosen(found: Tensor) -> Tensor:
    """For each row the numbers ``[choices, n]`` of the choice that is best on the rows of the other groups."""
    group = torch.arange(found.shape[1]) % GROUPS
    result = torch.empty_like(found[0])
    for held_out in range(GROUPS):
        best = found[:, group != held_out].sum(1).argmax()
        result[group == held_out] = found[best, group == held_out]
    return result
