"""Where the compute and the time of a run went: training, and all that deciding about the network took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from neuroexapt.events import RunFinished
from neuroexapt.report.quantities import in_bytes, in_percent

TRAINING = "training"

IN_WORDS = {
    TRAINING: "training on the line that counts",
    "discarded": "arms of trials that were given up",
    "proposing": "scores of candidates",
    "needs": "needs of layers",
    "surgery": "edits and their verification",
    "validation": "validations that decided trials",
}
EVALUATION = "evaluation for the record (ends of epochs, test)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What one purpose took; fractions are of everything. Seconds are None where they are part of training's."""

    purpose: str
    flops: int
    flops_fraction: float
    seconds: float | None
    seconds_fraction: float | None


def spending(finished: RunFinished) -> tuple[Spent, ...]:
    """Returns a row for each purpose, training first; nothing for a journal of old, which does not tell."""
    by_flops, by_seconds = finished.flops_by_purpose, finished.seconds_by_purpose
    if not by_flops:
        return ()
    total_flops, total_seconds = max(finished.total_flops, 1), max(sum(by_seconds.values()), 1e-9)
    rows = [
        Spent(
            purpose=IN_WORDS.get(purpose, purpose),
            flops=flops,
            flops_fraction=flops / total_flops,
            seconds=by_seconds.get(purpose, 0.0),
            seconds_fraction=by_seconds.get(purpose, 0.0) / total_seconds,
        )
        for purpose, flops in by_flops.items()
    ]
    if (rest := finished.total_flops - sum(by_flops.values())) > 0:
        rows.append(
            Spent(
                purpose=EVALUATION,
                flops=rest,
                flops_fraction=rest / total_flops,
                seconds=None,
                seconds_fraction=None,
            )
        )
    return tuple(rows)


def overhead(finished: RunFinished) -> tuple[float, float] | None:
    """Returns the share of morphogenesis in a run, of the FLOPs and of the seconds: all that is not training.

    Of the FLOPs of training and morphogenesis together, without evaluation for the record.
    """
    if not finished.flops_by_purpose:
        return None
    return 1 - _share(finished.flops_by_purpose), 1 - _share(finished.seconds_by_purpose)


def overhead_in_words(finished: RunFinished, allowed: float | None = None) -> str:
    """Returns what morphogenesis took, ``""`` for a journal of old.

    Args:
        finished: The end of the run.
        allowed: The setting ``overhead_fraction``, of the FLOPs of training; ``None`` for no limit.
    """
    shares = overhead(finished)
    if shares is None:
        return ""
    total = max(sum(finished.flops_by_purpose.values()), 1)
    training = max(finished.flops_by_purpose.get(TRAINING, 0), 1)
    given_up = finished.flops_by_purpose.get("discarded", 0) / total
    of_training = f" Against the FLOPs of training alone it took {in_percent(shares[0] * total / training)}"
    limit = "" if allowed is None else f"{of_training}; overhead_fraction allowed {in_percent(allowed)}."
    return (
        f"Morphogenesis took {in_percent(shares[0])} of the FLOPs of training and morphogenesis together, and "
        f"{in_percent(shares[1])} of the time; {in_percent(given_up)} of those FLOPs were for arms that were given up."
        f"{limit}"
    )


def memory_in_words(finished: RunFinished) -> str:
    """Returns what a training step was predicted to take and what was measured, in words; ``""`` for a journal of old.

    On CPU the measure is the growth of the process's peak: all else that a run needs is in it, and it is 0 where the
    process had held more before.
    """
    if not finished.predicted_bytes:
        return ""
    predicted = f"{in_bytes(finished.predicted_bytes)} predicted"
    return f"{predicted}, memory grew by {in_bytes(finished.measured_bytes)}"


def _share(by_purpose: Mapping[str, float]) -> float:
    """Of training; 1 where nothing was spent at all."""
    total = sum(by_purpose.values())
    return by_purpose.get(TRAINING, 0) / total if total > 0 else 1.0
