"""Units that are found on one half of the samples and valued on the other.

The best directions of a noisy matrix fit its noise, so their own singular values are too large. On samples that they
were not found on they gain nothing from noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from neuroexapt.analysis.estimators.base import Value
from neuroexapt.analysis.estimators.intervals import interval
from neuroexapt.analysis.scores.base import Junction
from neuroexapt.graph.flops import EIGENVECTOR_FLOPS

LEAST_SAMPLES = 6  # three in each half


def halves_of(junction: Junction) -> Iterator[tuple[Junction, Junction]]:
    """Yields (found on, valued on): even and odd samples, then the other way round."""
    even, odd = (
        replace(
            junction,
            gradients=junction.gradients[start::2],
            new=junction.new[start::2],
            old=junction.old[start::2],
            inputs=None if junction.inputs is None else junction.inputs[start::2],
        )
        for start in (0, 1)
    )
    yield even, odd
    yield odd, even


def mean_over_halves(junction: Junction, value: Callable[[Junction, Junction], Value]) -> Value:
    """Averages both; the spread is that of either, since the halves share their samples."""
    found = [value(one, other) for one, other in halves_of(junction)]
    spread = sum(f.spread for f in found) / len(found)
    return interval(sum(f.value for f in found) / len(found), spread, len(junction.gradients) // 2 - 1)


def leading(matrix: Tensor, count: int) -> Tensor:
    """Returns the leading left singular vectors ``[rows, count]`` of a matrix, through its Gram matrix of rows."""
    vectors: Tensor = torch.linalg.eigh(matrix @ matrix.T)[1]
    return vectors.flip(1)[:, :count]


def leading_flops(rows: int, columns: int) -> int:
    """Of ``leading``."""
    return 2 * rows * rows * columns + EIGENVECTOR_FLOPS * rows**3
