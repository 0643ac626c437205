"""How many samples, and how many positions of each, scoring can afford: chosen before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from neuroexapt.analysis.scores import JunctionShape, Score

LEAST_SAMPLES = 8
MAX_ROWS = 1024  # of one junction


@dataclass(frozen=True, slots=True)
class Effort:
    """What scoring may take.

    Attributes:
        max_flops: Of forwards, backwards and the scores' own arithmetic.
        max_samples: Training samples.
        max_bytes: Of rows and workspace of one candidate.
    """

    max_flops: int
    max_samples: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Size:
    """How much is read.

    Attributes:
        samples: Of the training data.
        rows: Positions of each sample at every junction, where it has so many.
        flops: What that takes at most.
    """

    samples: int
    rows: int
    flops: int


def sized(shape: JunctionShape, samples: int, rows: int) -> JunctionShape:
    """Returns the shape of a junction, whose ``rows`` are all its positions, with so many samples and rows."""
    return replace(shape, samples=samples, rows=min(rows, shape.rows))


def fits(shapes: Sequence[JunctionShape], samples: int, rows: int, score: Score, max_bytes: int) -> bool:
    """Whether the junctions of one candidate stay within their bytes."""
    return sum(score.needed_bytes(sized(shape, samples, rows)) for shape in shapes) <= max_bytes


def affordable(
    pass_flops: int, candidates: Sequence[Sequence[JunctionShape]], score: Score, effort: Effort
) -> Size | None:
    """Chooses samples and rows, the most of ``samples * sqrt(rows)``: rows of one sample repeat each other.

    Args:
        pass_flops: Of one sample through all twins, there and back.
        candidates: The junctions of each.
        score: Whose arithmetic it is.
        effort: The limits.

    Returns:
        ``None`` where not even ``LEAST_SAMPLES`` are affordable.
    """
    most_rows = max((shape.rows for shapes in candidates for shape in shapes), default=1)
    best: Size | None = None
    for samples in _falling(min(effort.max_samples, effort.max_flops // max(pass_flops, 1))):
        rows = 1
        while rows < 2 * most_rows and (rows == 1 or samples * rows <= MAX_ROWS):
            flops = flops_of(pass_flops, candidates, score, samples, rows)
            is_small = all(fits(shapes, samples, rows, score, effort.max_bytes) for shapes in candidates)
            if flops > effort.max_flops or not is_small:
                break
            if best is None or samples**2 * rows > best.samples**2 * best.rows:
                best = Size(samples, rows, flops)
            rows *= 2
    return best


def _falling(most: int) -> Iterator[int]:
    """Yields numbers of samples from the most to the least, each a tenth smaller."""
    samples = most
    while samples > LEAST_SAMPLES:
        yield samples
        samples = int(samples * 0.9)
    if most >= LEAST_SAMPLES:
        yield LEAST_SAMPLES


def flops_of(
    pass_flops: int, candidates: Sequence[Sequence[JunctionShape]], score: Score, samples: int, rows: int
) -> int:
    """Returns what reading and scoring takes at most."""
    arithmetic = sum(score.flops(sized(shape, samples, rows)) for shapes in candidates for shape in shapes)
    return samples * pass_flops + arithmetic
