"""What a linear function of some rows cannot give of others, without the optimism of a fit.

A fit of r columns to n rows leaves (n - 1 - r) / n of the noise. Two ways undo that: divide by the degrees of freedom,
which is exact where the noise is the same everywhere, and the errors of rows that were left out of their own fit, which
need no such thing but are those of n - 1 rows. The mean of their products (HC2: MacKinnon & White 1985) stands between
them; intervals hold all three. Where columns are too many for the rows, ridge regression with leave-one-out errors
(Golub, Heath & Wahba 1979) bounds the truth from above, since unlimited rows can only predict better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuroexapt.analysis.estimators.base import Value
from neuroexapt.analysis.estimators.squares import skewed, tail_quantile

RANK = 1e-5  # of the largest singular value: below are the roundings of float32 rows
FEWEST = 10  # degrees of freedom, and
SHARE = 5  # a fifth of the rows: fewer leave nothing to measure errors on
PENALTIES = 10.0 ** torch.arange(-3.0, 5.0, dtype=torch.float64)  # of ridge, per singular value of a typical column
ALONE = 0.05  # of its own error a row keeps at least: a fit goes through rows below, whatever they are
ROOM = "room beside the inputs"  # that a sample keeps
NOTHING = 1e-10  # of a mean square: roundings of float32 rows
LEAST = 0.25  # of the variance of errors is taken for their own
ROUNDING = 1e-9  # of a share of squares of float32 rows


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What is left of rows after the best linear function of others.

    Attributes:
        errors: Mean squared error, float64 ``[3]``: by degrees of freedom, by HC2, and by leave-one-out less what a
            fit of n - 1 rows errs more; ``[1]``, by leave-one-out, where the fit is by ridge.
        of_row: float64 ``[n]``: the squared error of each row by the fit of all others.
        excess: By what ``of_row`` varies too much, as a variance: the errors of the fit are in it.
    """

    errors: Tensor
    of_row: Tensor
    excess: float = 0.0

    @staticmethod
    def nothing(targets: Tensor) -> Fit:
        """Returns what is left by no function at all, not even a mean."""
        squares = targets.double().square().sum(1)
        return Fit(squares.mean()[None], squares)


def workspace_bytes(num_rows: int, num_columns: int, num_targets: int) -> int:
    """Returns the most that ``fit`` holds."""
    rank = min(num_rows, num_columns)
    return 8 * (
        3 * num_rows * num_columns
        + 3 * rank * max(rank, num_columns)
        + 4 * num_rows * num_targets
        + 3 * num_targets**2
        + 12 * num_rows
    )


def basis(columns: Tensor, of: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Returns an orthonormal basis ``[n, r]`` of columns ``[n, q]`` without mean, and its singular values ``[r]``.

    Args:
        columns: Each is brought to norm 1.
        of: What they are a part of: a column that is nothing beside its whole is left out.
    """
    given = columns.double()
    centred = given - given.mean(0)
    scale = centred.norm(dim=0)
    is_constant = scale <= RANK * (given if of is None else of).norm(dim=0)
    centred *= torch.where(is_constant, 0.0, 1 / scale)
    is_wide = centred.shape[1] >= len(centred)
    squares, vectors = torch.linalg.eigh(centred @ centred.T if is_wide else centred.T @ centred)
    rank = int((squares > RANK**2 * squares[-1]).sum()) if squares.numel() else 0
    singular, vectors = squares.flip(0)[:rank].sqrt_(), vectors.flip(1)[:, :rank]
    return vectors if is_wide else (centred @ vectors).div_(singular), singular


def room_for(num_rows: int, rank: int) -> int:
    """Returns how many more columns could be fitted and leave enough rows to measure errors on; may be negative."""
    return num_rows - 1 - rank - math.ceil(max(FEWEST, num_rows / SHARE))


def spread_rows(columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns which rows a fit says something about, bool ``[n]``, and the ``basis`` of their columns.

    Without those that a fit owes to themselves alone: a unit that is on in one sample gives a column that fits this row
    and no other.
    """
    rows = torch.ones(len(columns), dtype=torch.bool)
    while True:
        left, singular = basis(columns[rows])
        is_alone = 1 - 1 / len(left) - left.square().sum(1) < ALONE
        if room_for(*left.shape) < 0 or not bool(is_alone.any()):
            return rows, left, singular
        rows[rows.clone()] = ~is_alone


def open_to(value: Value, unseen: float) -> Value:
    """Returns a share with an interval that holds whatever an unseen part of the whole may be, a fraction."""
    seen = 1 - min(max(unseen, 0.0), 1.0)
    return replace(value, low=value.low * seen, high=value.high * seen + 1 - seen) if seen < 1 else value


def fit(left: Tensor, targets: Tensor) -> Fit:
    """Fits by least squares, with a mean.

    Args:
        left: Orthonormal basis ``[n, r]`` without mean; ``room_for`` it.
        targets: ``[n, k]``.
    """
    count, rank = left.shape
    freedom = count - 1 - rank
    kept = (1 - 1 / count - left.square().sum(1)).clamp_min(1 / count**2)
    centred = targets.double() - targets.double().mean(0)
    residual = centred - left @ (left.T @ centred)
    squares, covariance = residual.square().sum(1), residual.T @ residual / freedom
    of_row, part = squares / kept**2, freedom / count
    ways = torch.stack([squares.mean() / part, (squares / kept).mean(), of_row.mean() * part])
    fourth = float(covariance.square().sum() - covariance.trace() ** 2 / freedom)
    return Fit(ways, of_row, max(2 * fourth, 0.0) * (1 / part**2 - 1 / part))


def ridge(left: Tensor, singular: Tensor, targets: Tensor) -> Fit:
    """Fits with the penalty that predicts best the rows that are left out.

    Args:
        left: Basis ``[n, r]``.
        singular: Of the columns, which have norm 1.
        targets: ``[n, k]``.
    """
    count, best = len(left), None
    centred = targets.double() - targets.double().mean(0)
    along, leverage = left.T @ centred, left.square()
    for penalty in (*PENALTIES.tolist(), math.inf):
        shrink = singular.square() / (singular.square() + penalty)
        kept = (1 - 1 / count - leverage @ shrink).clamp_min(1 / count**2)
        squares = torch.addmm(centred, left, along * shrink[:, None], alpha=-1).square_().sum(1) / kept**2
        if best is None or squares.sum() < best.sum():
            best = squares
    assert best is not None
    return Fit(best.mean()[None], best)


def share(part: Fit, whole: Fit, *, is_complement: bool = False) -> Value:
    """Returns the ratio of two mean squared errors, in [0, 1], with an interval that holds every way to measure it.

    Its spread is that of errors of rows that were left out, whose tails are not mixed by the fit, less the variance
    that the fit adds to normal errors where the whole was not fitted itself: the two would have it in common.

    Args:
        part: The numerator.
        whole: The denominator.
        is_complement: Returns one minus the ratio.
    """
    count = len(part.of_row)
    ratios = part.errors / (whole.errors if len(whole.errors) == len(part.errors) else whole.errors[:1])
    middle = float(ratios[len(ratios) // 2])
    influence = part.of_row - middle * whole.of_row
    influence = influence - influence.mean()
    variance = float(influence.square().sum()) / (count - 1)
    known = 1 - part.excess / variance if variance > 0 and not whole.excess else 1.0
    influence = influence * math.sqrt(max(known, LEAST)) / (float(whole.errors[len(whole.errors) // 2]) * count)
    if is_complement:
        ratios, middle, influence = 1 - ratios, 1 - middle, -influence
    spread = float(influence.norm())
    down, up = skewed(tail_quantile(influence, count - 1), influence)
    ends = (float(ratios.amin()) - down * spread - ROUNDING, float(ratios.amax()) + up * spread + ROUNDING)
    return Value(min(max(middle, 0.0), 1.0), spread, *(min(max(end, 0.0), 1.0) for end in ends))
