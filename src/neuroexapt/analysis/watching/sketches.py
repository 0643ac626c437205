"""Seeded choices that depend on the number of a sample and on nothing else, so that batches do not matter.

A count sketch adds every coordinate, with a random sign, to one of k buckets: inner products are kept on average, and
neither the projection nor its inputs need more than one number a coordinate (Charikar et al. 2002; Weinberger et al.
2009, Feature Hashing, lemma 2).
"""

from __future__ import annotations

import zlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Words = npt.NDArray[np.uint64]


def hashed(purpose: str, numbers: Words) -> Words:
    """Returns 64 well-mixed bits for each number (the finaliser of splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = numbers.astype(np.uint64) + np.uint64(zlib.crc32(purpose.encode()) + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: Words = z ^ (z >> np.uint64(31))
    return mixed


def chosen_positions(purpose: str, samples: Words, num_positions: int) -> Tensor:
    """Returns one position for each sample, uniform and independent of all others: int64 ``[n]``."""
    return torch.from_numpy((hashed(purpose, samples) % np.uint64(num_positions)).astype(np.int64))


def count_sketch(purpose: str, rows: Tensor, width: int) -> Tensor:
    """Returns ``[..., width]`` for rows ``[..., d]``; the rows themselves where d is not larger than that."""
    size = rows.shape[-1]
    if size <= width:
        return rows
    buckets, signs = _buckets(purpose, size, width)
    result = rows.new_zeros(*rows.shape[:-1], width)
    return result.index_add_(-1, buckets.to(rows.device), rows * signs.to(rows))


def sketch_matrix(purpose: str, size: int, width: int) -> Tensor:
    """Returns the same projection as a matrix, float32 ``[width, size]``; the identity where ``size <= width``."""
    if size <= width:
        return torch.eye(size)
    buckets, signs = _buckets(purpose, size, width)
    result = torch.zeros(width, size)
    result[buckets, torch.arange(size)] = signs
    return result


@lru_cache(maxsize=4)  # of one layer, for all chunks of its samples
def _buckets(purpose: str, size: int, width: int) -> tuple[Tensor, Tensor]:
    """The bucket and the sign of every coordinate."""
    words = hashed(purpose, np.arange(size, dtype=np.uint64))
    buckets = torch.from_numpy(((words >> np.uint64(1)) % np.uint64(width)).astype(np.int64))
    return buckets, torch.from_numpy(np.where(words & np.uint64(1), np.float32(1.0), np.float32(-1.0)))
