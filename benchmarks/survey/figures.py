"""Figures over rows: each a number that the tables show."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from survey.edits import DOUBLE_TOLERANCE
from survey.model_list import GIANT

LAW_TOLERANCE = 1e-3  # relative, float32; a wrong axis moves outputs by their own size
Row = Mapping[str, Any]


def get(row: Row, *keys: str, default: Any = None) -> Any:
    """Returns a nested value, or the default where a stage is missing."""
    found: Any = row
    for key in keys:
        if not isinstance(found, Mapping) or key not in found:
            return default
        found = found[key]
    return found


def is_traced(row: Row) -> bool:
    """Whether there is a graph and no operator without a rule stopped it."""
    return get(row, "trace", "num_groups", default=0) > 0


def law_holds(row: Row) -> bool:
    """Whether permuting every free axis at once left the output alone, and no axis had to be frozen."""
    return get(row, "law", "error", default=1.0) <= LAW_TOLERANCE and get(row, "law", "distrusted", default=[1]) == []


def outcomes(row: Row) -> Counter[str]:
    """Returns how many sampled axes ended how."""
    return Counter(get(row, "axes", "counts", default={}))


def num_sampled(row: Row) -> int:
    """Number of axes that were drawn."""
    return sum(outcomes(row).values())


def num_resizable(row: Row) -> int:
    """Number of drawn axes at whose new size the forward runs."""
    return int(get(row, "axes", "num_resizable", default=0))


def unclean(rows: Iterable[Row], kind: str) -> list[str]:
    """Lists edits that ended as ``wrong``, ``fault`` or ``taken back``, over all stages, with their models."""
    found = []
    for row in rows:
        for stage in ("axes", "kinds"):
            for item in get(row, stage, "unclean", default=[]):
                if _verdict(row, item) == kind:
                    what = f"{item['kind']} {item['axis']} {item['size']} -> {item['to']}"
                    found.append(f"{row['model']}: {what}: {item['reason'] or item['second_change']}")
        if kind == "fault":
            found += [f"{row['model']}: {fault}" for fault in get(row, "training", "faults", default=[])]
            crashes = [(k, v["crash"]) for k, v in row.items() if isinstance(v, Mapping) and "crash" in v]
            found += [f"{row['model']}: stage {stage}: {crash}" for stage, crash in crashes]
            found += [f"{row['model']}: {row['died']}"] if "died" in row else []
        if kind == "wrong" and get(row, "double", "worst", default=0.0) > get(row, "double", "tolerance", default=0.0):
            found.append(f"{row['model']}: float64 changes by {get(row, 'double', 'worst'):.1e}")
    return found


def _verdict(row: Row, item: Mapping[str, Any]) -> str:
    """A float32 change above the tolerance is rounding where the same edit is exact in float64."""
    in_double = get(row, "double", "changes", default={}).get(item["axis"])
    if isinstance(in_double, float) and in_double <= get(row, "double", "tolerance") and item["outcome"] != "fault":
        return "rounding"
    return str(item["outcome"])


def grouped_reasons(rows: Iterable[Row], *keys: str) -> list[tuple[str, int, int, str]]:
    """Adds up ``[reason, count, example]`` over rows: ``(reason, count, models, example)``, the commonest first."""
    counts: Counter[str] = Counter()
    models: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for row in rows:
        for reason, count, example in get(row, *keys, default=[]):
            counts[reason] += count
            models[reason] += 1
            examples.setdefault(reason, f"{row['model']} {example}")
    return [(reason, count, models[reason], examples[reason]) for reason, count in counts.most_common()]


def median(values: Iterable[float | None]) -> float:
    """Median of what is there; NaN of nothing."""
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else float("nan")


def time_ratios(rows: Sequence[Row]) -> list[float]:
    """Our seconds over theirs, for graph and groups, where both answered."""
    pairs = [(get(row, "trace", "seconds"), get(row, "peer_build", "seconds")) for row in rows]
    return [ours / theirs for ours, theirs in pairs if ours and theirs]


def handled(row: Row) -> bool:
    """Whether the law holds, an edit was made and trained on, the replay is the same, and nothing at all went wrong."""
    trained = get(row, "training", "edits", default=0) > 0 and get(row, "training", "replay") == "same"
    clean = not any(unclean([row], kind) for kind in ("fault", "wrong"))
    return is_traced(row) and law_holds(row) and trained and clean


def in_double(rows: Iterable[Row]) -> tuple[int, int]:
    """Returns how many edits that were made again in float64 are exact there, and how many were made again.

    Models that compute in float32 whatever their parameters are left out.
    """
    changes = [
        change
        for row in rows
        if not get(row, "double", "computes_in_single", default=False)
        for change in get(row, "double", "changes", default={}).values()
    ]
    exact = [c for c in changes if isinstance(c, float) and c <= DOUBLE_TOLERANCE]
    return len(exact), len(changes)


def peak_of_giants(rows: Iterable[Row]) -> str:
    """Returns the largest peak of extra memory of a trace over the bytes of the parameters, of the giants."""
    large = [row for row in rows if get(row, "size", "parameters", default=0) > GIANT]
    found = [get(row, "trace", "extra_fraction") for row in large]
    return f"{100 * max(f for f in found if f is not None):.1f} %" if any(f is not None for f in found) else "-"


def share(part: float, whole: float) -> str:
    """For example ``12 / 20 (60 %)``."""
    return f"{part:,.0f} / {whole:,.0f} ({100 * part / whole:.1f} %)" if whole else "-"
