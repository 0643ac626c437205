"""Which training samples an epoch sees, and in which order: a function of the seed and the epoch alone.

Training walks along an endless row of permutations of all samples, one after the other, and an epoch is the next
``length`` steps on it. So an epoch shorter than the data is a fresh subset, and every sample comes once before any
comes again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuroexapt.resources import stream


def epoch_order(seed: int, epoch: int, count: int, length: int) -> tuple[Tensor, Tensor]:
    """Returns the samples of an epoch in order, and how often each of them was seen before; both int64 [length].

    Args:
        seed: Of the run.
        epoch: From 0.
        count: How many samples there are.
        length: Samples of an epoch, at most ``count``.
    """
    start, end = epoch * length, (epoch + 1) * length
    rows, rounds = [], range(start // count, -(-end // count))
    for index in rounds:
        permutation = torch.randperm(count, generator=stream(seed, "order", index))
        rows.append(permutation[max(start - index * count, 0) : end - index * count])
    return torch.cat(rows), torch.cat([torch.full_like(row, index) for row, index in zip(rows, rounds, strict=True)])
