"""What a set of columns spans, and how much of a gradient other columns explain beyond that.

Ordinary least squares explains k / rows of pure noise with k columns. The explained sum of squares is therefore
lowered by what noise of the size that is left over would have given: for each sample, the square of what its own rows
contribute, with the left-over made larger by the leverage that fitting took from it (MacKinnon & White 1985, HC2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuroexapt.analysis.estimators.base import Value
from neuroexapt.analysis.estimators.intervals import interval
from neuroexapt.analysis.scores.products import own_squares, products_flops, squared_mean, squared_mean_of
from neuroexapt.graph.flops import EIGENVECTOR_FLOPS

ALREADY_SPANNED = 1e-6  # a column of which less than this share of its square is left has nothing of its own
LEAST_EIGENVALUE = 1e-10  # of the largest; less is rounding


def basis_of(columns: Tensor, least: float | None = None, most: int | None = None) -> Tensor:
    """Returns an orthonormal basis ``[rows, k]`` of the leading directions of columns ``[rows, c]``, float64.

    Through the smaller of the two Gram matrices.

    Args:
        columns: Float64.
        least: Least squared length of a direction; relative to the longest by default.
        most: Most directions.
    """
    rows, count = columns.shape
    is_tall = count < rows
    gram = columns.T @ columns if is_tall else columns @ columns.T
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0), vectors.flip(1)
    floor = float(values[0]) * LEAST_EIGENVALUE if len(values) else 0.0
    kept = values > max(floor, least or 0.0, torch.finfo(values.dtype).tiny)
    if most is not None:
        kept[most:] = False
    vectors = vectors[:, kept]
    found: Tensor = (columns @ vectors) / values[kept].sqrt() if is_tall else vectors
    return found


def basis_flops(rows: int, count: int) -> int:
    """Of ``basis_of``, at most."""
    small = min(rows, count)
    return 2 * rows * count * small + EIGENVECTOR_FLOPS * small**3 + (2 * rows * count * count if count < rows else 0)


def spanned_already(old: Tensor) -> Tensor:
    """Returns a basis of old columns ``[n, q, c]`` and 1, leading first; at most half as many as there are rows."""
    flat = old.flatten(0, 1)
    whole = torch.cat([flat, torch.ones_like(flat[:, :1]) if flat.shape[1] else flat.new_ones(len(flat), 1)], 1)
    return basis_of(whole, most=max(len(flat) // 2, 1))


def without(columns: Tensor, basis: Tensor) -> Tensor:
    """Returns columns ``[rows, c]`` less their projection onto a basis ``[rows, k]``."""
    return columns - basis @ (basis.T @ columns)


def explained(new: Tensor, residual: Tensor, spanned: Tensor, least: float, samples: int) -> Value:
    """Estimates what new columns explain of a residual: ``tr(C' S^-1 C)``, C = E[new' residual], S = E[new' new].

    Args:
        new: ``[rows, c]``, projected out of ``spanned``.
        residual: ``[rows, out]``, projected out of it.
        spanned: The basis.
        least: Squared length from which on a direction of ``new`` counts.
        samples: n; each has equally many rows.
    """
    rows = len(new)
    basis = basis_of(new, least, most=max((rows - spanned.shape[1]) // 2, 1))
    if not basis.shape[1]:
        return Value(0.0, 0.0, 0.0, 0.0)
    answer = basis.T @ residual
    leverage = (spanned.square().sum(1) + basis.square().sum(1)).clamp_max(1 - 1e-6)
    left = (residual - basis @ answer) / (1 - leverage).sqrt()[:, None]
    grouped = basis.view(samples, -1, basis.shape[1])
    noise = own_squares(grouped, left.view(samples, -1, left.shape[1])).sum()
    spread = squared_mean(grouped, residual.view(samples, -1, residual.shape[1])).spread * samples
    return interval(float(answer.square().sum() - noise) / samples, spread, samples - 1)


def explained_flops(samples: int, rows: int, new: int, outputs: int) -> int:
    """Of ``explained``, at most."""
    total = samples * rows
    kept = min(new, max(total // 2, 1))
    return basis_flops(total, new) + 4 * total * kept * outputs + 2 * products_flops(samples, rows, kept, outputs)


def explained_one_by_one(new: Tensor, residual: Tensor, spanned: Tensor, least: Tensor, samples: int) -> Value:
    """The same where column j of ``new`` explains column j of the residual alone.

    Args:
        new: ``[rows, c]``.
        residual: ``[rows, c]``.
        spanned: The basis.
        least: ``[c]``, squared length from which on a column counts.
        samples: n; each has equally many rows.
    """
    squares = new.square().sum(0)
    unit = torch.where(squares > least, new / squares.clamp_min(torch.finfo(new.dtype).tiny).sqrt(), 0.0)
    answer = (unit * residual).sum(0)
    leverage = (spanned.square().sum(1, keepdim=True) + unit.square()).clamp_max(1 - 1e-6)
    left = (residual - unit * answer) / (1 - leverage).sqrt()
    noise = (unit * left).view(samples, -1, unit.shape[1]).sum(1).square().sum()
    spread = squared_mean_of((unit * residual).view(samples, -1, unit.shape[1]).sum(1)).spread * samples
    return interval(float(answer.square().sum() - noise) / samples, spread, samples - 1)
