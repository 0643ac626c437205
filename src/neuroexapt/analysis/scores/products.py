"""The squared norm of an expected gradient, without the bias that its noise gives.

The square of a mean of n noisy vectors is too large by their variance over n. Products of different samples have no
such bias, and what is left when one sample goes tells the spread.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuroexapt.analysis.estimators.base import Value
from neuroexapt.analysis.estimators.intervals import interval
from neuroexapt.analysis.estimators.squares import Jackknifed, square_of_mean


def squared_mean(first: Tensor, second: Tensor) -> Value:
    """Estimates ``|E v|^2`` of ``v_i = sum_r first_ir second_ir'`` by ``sum_{i != j} <v_i, v_j> / (n (n - 1))``.

    Memory and FLOPs grow with n, not with its square, and no ``v_i`` is formed.

    Args:
        first: ``[n, q, a]``; n >= 3.
        second: ``[n, q, b]``.
    """
    whole = first.flatten(0, 1).T @ second.flatten(0, 1)  # sum of all v
    with_all = ((first.flatten(0, 1) @ whole) * second.flatten(0, 1)).view(len(first), -1).sum(1)
    own, count = own_squares(first, second), len(first)
    total = float(whole.square().sum()) - float(own.sum())
    without = (total - 2 * (with_all - own)) / ((count - 1) * (count - 2))
    return _value(Jackknifed(total / (count * (count - 1)), without))


def squared_mean_of(vectors: Tensor) -> Value:
    """The same for vectors ``[n, k]`` that are given."""
    return _value(square_of_mean(vectors))


def own_squares(first: Tensor, second: Tensor) -> Tensor:
    """Returns ``|v_i|^2``, shape ``[n]``."""
    if first.shape[1] == 1:
        return first.square().sum((1, 2)) * second.square().sum((1, 2))
    return (torch.bmm(first, first.transpose(1, 2)) * torch.bmm(second, second.transpose(1, 2))).sum((1, 2))


def products_flops(samples: int, rows: int, first: int, second: int) -> int:
    """Of ``squared_mean``."""
    return samples * rows * (4 * first * second + 2 * rows * (first + second))


def _value(statistic: Jackknifed) -> Value:
    return interval(statistic.whole, float(statistic.influence.norm()), len(statistic.without) - 1)
