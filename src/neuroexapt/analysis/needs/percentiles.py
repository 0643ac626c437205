"""Where a layer's value stands among those of the other layers, on [0, 1], as far as the intervals tell them apart.

The mid-rank percentile of layer i of n is the share of the other layers that are below it, and half of those equal to
it. The true values are known with standard errors s only, so "below" is counted with its probability:

    p_i = sum over j != i of Phi((x_i - x_j) / sqrt(s_i^2 + s_j^2)) / (n - 1)

which is the mid-rank itself where nothing is uncertain, 1/2 where everything is, and does not jump when noise swaps two
layers. It has no unit, so quantities of any scale can be averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from neuroexapt.analysis.evidence import Evidence

MIDDLE = 0.5  # of one layer alone, and of what is not told apart


def percentiles(readings: Sequence[Evidence], null: float | None = None) -> list[float]:
    """Returns the expected mid-rank percentile of each reading, in [0, 1]; one alone stands in the middle.

    Args:
        readings: Of one quantity, one for each layer.
        null: What the quantity is where there is nothing to find. A reading that is not told from it stands in the
            middle, and the others are compared with the null in its place.
    """
    told = [null is None or is_told_from(reading, null) for reading in readings]
    points = [(r.value, r.spread) if is_told else (null or 0.0, 0.0) for r, is_told in zip(readings, told, strict=True)]
    return [
        math.fsum(_chance_below(point, other) for j, other in enumerate(points) if j != i) / (len(points) - 1)
        if is_told and len(points) > 1
        else MIDDLE
        for i, (point, is_told) in enumerate(zip(points, told, strict=True))
    ]


def is_told_from(reading: Evidence, null: float) -> bool:
    """Whether an interval excludes a value."""
    return not reading.low <= null <= reading.high


def _chance_below(point: tuple[float, float], other: tuple[float, float]) -> float:
    """The probability that ``other`` lies below ``point``, each a value with its standard error."""
    distance, spread = point[0] - other[0], math.hypot(point[1], other[1])
    if spread == 0:
        return 0.5 if distance == 0 else float(distance > 0)
    return 0.5 * (1.0 + math.erf(distance / spread / math.sqrt(2.0)))
