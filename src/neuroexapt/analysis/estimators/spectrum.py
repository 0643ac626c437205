"""The spectrum of the correlation matrix of a layer's units, from n rows of d units, by the smaller of n x n and d x d.

What the eigenvalues of a sample say about those of the population is wrong where d is not small against n: they spread
(Marchenko & Pastur 1967). So the entropy of the population's spectrum is bounded from both sides by what can be
estimated without that error, and the interval reaches from one bound to the other.

With R the population's correlation matrix, p its eigenvalues over d, and H(p) = -sum p log p:

- from below by the entropy of order 2, H >= H_2 = -log sum p^2 (Renyi 1961), whose sum of squares is known unbiased;
- from below by the entropy of the sample's own spectrum, whose mean is smaller as the entropy of a matrix is concave;
- from above by the entropy of the variances of *other* rows along the sample's eigenvectors: the diagonal of R in any
  orthonormal basis is majorised by its eigenvalues (Schur 1923); directions that the rows do not reach share the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroexapt.analysis.estimators.base import Value
from neuroexapt.analysis.estimators.intervals import (
    GROUPS,
    groups_count,
    influenced,
    interval,
    jackknifed,
    standard_error,
)
from neuroexapt.analysis.estimators.standardised import StandardRows, block_bytes, block_size, without_groups
from neuroexapt.analysis.watching import LayerSample

FOLDS = 4  # of the rows, each held out once
_DOUBT = 0.5  # share of the upper bound's bias that its correction may leave
_SMALLEST = 1e-6  # eigenvalues below this share of the largest are rounding


@dataclass(frozen=True, slots=True)
class Factor:
    """The rows ``Z / sqrt(n) = U diag(sqrt(eigenvalues)) V'``, of rank r.

    Attributes:
        left: U, float32 ``[n, r]``.
        eigenvalues: Of the sample's correlation matrix, float32 ``[r]``, largest first; they add up to d.
    """

    left: Tensor
    eigenvalues: Tensor


def _largest_first(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Returns eigenvalues that are not rounding, and their vectors."""
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    count = int((eigenvalues > _SMALLEST * eigenvalues[-1]).sum())
    return eigenvalues[-count:].flip(0), vectors[:, -count:].flip(1)


def factor(rows: StandardRows) -> Factor:
    """Returns the thin factor, by the smaller of the two matrices."""
    if rows.num_rows <= rows.num_units:
        eigenvalues, left = _largest_first(rows.gram())
        return Factor(left, eigenvalues * (rows.num_units / rows.num_rows))
    whole = rows.block(slice(0, rows.num_units))
    eigenvalues, right = _largest_first((whole.T @ whole).div_(rows.num_rows))
    return Factor((whole @ right).div_((rows.num_rows * eigenvalues).sqrt()), eigenvalues)


def spectrum_bytes(num_rows: int, width: int) -> int:
    """The most that any function here holds.

    Five Gram matrices, or the rows four times and three covariances; mean and deviation without each group of rows.
    """
    held = 5 * num_rows**2 if num_rows <= width else 4 * num_rows * width + 3 * width**2
    without = 8 * GROUPS * width
    making = 50 * GROUPS * block_size(num_rows, width)
    return max(4 * held, making) + without + block_bytes(num_rows, width) + 100 * num_rows


def square_correlation(sample: LayerSample, rows: StandardRows) -> Value:
    """Returns ``mean_square_correlation`` of a sample's features, which it keeps."""
    return sample.once("mean square correlation", lambda: mean_square_correlation(rows))


def mean_square_correlation(rows: StandardRows) -> Value:
    """Estimates the mean r^2 over pairs of units, without the bias of n rows: 0 for independent units.

    ``sum r^2 = ||ZZ'||^2 / n^2 = ||Z'Z||^2 / n^2``. For independent units the mean r^2 of a sample is 1/(n - 1), which
    is taken off; the jackknife takes off the smaller bias for dependent ones.
    """
    n = rows.num_rows
    count = groups_count(n)
    mean, inverse = rows.features.new_empty(2, count, rows.num_units)
    for units, z in rows.blocks():
        mean[:, units], inverse[:, units] = without_groups(z, count)
        del z
    mean, inverse = mean.mul_(rows.deviation).add_(rows.mean), inverse.div_(rows.deviation)
    group = torch.arange(n) % count
    whole = _excess(rows, torch.ones(n), rows.mean[0], 1 / rows.deviation[0])
    repeated = [_excess(rows, (group != out).float(), mean[out], inverse[out]) for out in range(count)]
    return jackknifed(whole, repeated, low=0.0, high=1.0)


def _excess(rows: StandardRows, is_kept: Tensor, mean: Tensor, inverse: Tensor) -> float:
    """Returns the mean r^2 of some of the rows above what independent units would show, over what is left to 1.

    Args:
        rows: All of them.
        is_kept: 1 for the rows that are meant, 0 for the others: ``[n]``.
        mean: Of the units over these: ``[d]``.
        inverse: One over their standard deviations: ``[d]``.
    """
    n, d = int(is_kept.sum()), rows.num_units
    if rows.num_rows <= d:
        matrix = rows.features.new_zeros(rows.num_rows, rows.num_rows)
        for units in rows.slices():
            z = rows.scaled(units, mean[units], inverse[units])
            matrix.addmm_(z, z.T)
            del z
        squares = float(is_kept @ matrix.div_(n).square_() @ is_kept)
    else:
        z = rows.scaled(slice(0, d), mean, inverse).mul_(is_kept[:, None])
        squares = float((z.T @ z).div_(n).square_().sum(dtype=torch.float64))
    null = 1 / (n - 1)
    return ((squares - d) / (d * (d - 1)) - null) / (1 - null)


def _projections(rows: StandardRows) -> Tensor:
    """Returns ``[n, r]``: each row's squares along the eigenvectors of the folds that it is not in."""
    n, d = rows.num_rows, rows.num_units
    fold_of = torch.arange(n) % FOLDS
    by_gram = n <= d
    matrix = rows.gram().mul_(d) if by_gram else rows.block(slice(0, d))
    squares = rows.features.new_zeros(n, min(n, d))
    for fold in range(FOLDS):
        out = (fold_of == fold).nonzero()[:, 0]
        kept = (fold_of != fold).nonzero()[:, 0]
        if by_gram:
            inner = matrix[kept][:, kept]
            center = inner.mean(0)
            inner.sub_(center).sub_(center[:, None]).add_(center.mean())
            eigenvalues, vectors = _largest_first(inner)
            vectors.sub_(vectors.mean(0))
            found = (matrix[out][:, kept] @ vectors).div_(eigenvalues.sqrt())
        else:
            inner = matrix[kept]
            inner.sub_(inner.mean(0))
            found = matrix[out] @ _largest_first(inner.T @ inner)[1]
        squares[out, : found.shape[1]] = found.square_()
    return squares


def entropy_bounds(rows: StandardRows) -> tuple[Value, Value]:
    """Bounds the entropy of the population's spectrum, in nats.

    Returns:
        The lower bound from the sample's spectrum, and the upper from held-out rows; each with the interval of the
        bound. The entropy of order 2 is ``mean_square_correlation``'s to give.
    """
    n, d = rows.num_rows, rows.num_units
    squares = _projections(rows)
    means = squares.mean(0, dtype=torch.float64)
    rest = max(d - float(means.sum()), 0.0)
    num_rest = d - int((means > 0).sum())
    logs = means.clamp(min=1e-12).log()
    rest_log = math.log(max(rest, 1e-12) / num_rest) if num_rest else 0.0
    upper = math.log(d) - (float(means @ logs) + rest * rest_log) / d
    bias = float((squares.var(0).double() / means.clamp(min=1e-12)).sum()) / (2 * n * d)
    held = (squares @ (logs - rest_log).float()).double()
    del squares

    whole = factor(rows)
    own = whole.eigenvalues.double()
    lower = math.log(d) - float(own @ own.log()) / d
    sampled = n * (whole.left.square() @ (own * own.log()).float()).double()
    weights = torch.zeros(2, len(own), dtype=torch.float64)
    weights[0] = own.log()
    count = min(len(own), len(means))
    weights[1, :count] = (means * logs)[:count]
    unreached = rest_log * rest / max(num_rest, 1)
    weights[1] = (weights[1] - unreached) / own
    weights = weights.float()
    norms = torch.zeros(n, dtype=torch.float64)
    for _, z in rows.blocks():
        squared = (whole.left.T @ z).square_().div_(n)
        shares = weights @ squared
        z.square_()
        norms += z.sum(1)
        sampled -= z @ shares[0]
        held -= z @ shares[1]
    held += (rest_log - unreached) * norms
    spread = math.hypot(standard_error(held) / d, _DOUBT * bias)
    return influenced(lower, -sampled / d), interval(upper + bias, spread, n - 1)
