"""The summary of ``build_seconds``: who answered, and the ratios of the times where both did."""

from __future__ import annotations

import shlex
import statistics
import sys
from typing import Any

from survey.model_list import FAMILIES, SEED

SHORT = 5.0  # seconds of a first call under which there is a second
CALLS = ("first", "second")
SIDES = ("ours", "theirs")


def summary(rows: list[dict[str, Any]], peer_seconds: float) -> str:
    """Returns the table in Markdown, a line a family and call; then who had no answer, and why."""
    command = shlex.join(["python", *sys.argv])
    lines = [f"`{command}`, seed {SEED}; {'; '.join(sorted({r['environment'] for r in rows if 'environment' in r}))}."]
    lines += [f"Processor seconds, one thread; at most {peer_seconds:.0f} s a call of torch-pruning.", ""]
    head = "family | call | models | both answered | only ours | only theirs | neither | ours / theirs, median"
    lines += [f"| {head} | quartiles | ours faster | median s, ours | theirs |", "|" + "---|" * 12]
    for family in ("all", *FAMILIES):
        mine = [row for row in rows if family in ("all", row["model"].partition("/")[0])]
        lines += [f"| {family} | {call} | {_cells(mine, call)} |" for call in CALLS if mine]
    lines += ["", f"Second calls: where both first ones took under {SHORT:.0f} s. No answer at the first call:", ""]
    for row in rows:
        failed = [side for side in SIDES if not _time(row, side, "first")]
        why = [f"{side}: {row.get(side, {}).get('first', {}).get('failed', row.get('died'))}" for side in failed]
        lines += [f"- {row['model']}, {'; '.join(why)}".replace("\n", " ")] if why else []
    return "\n".join(lines) + "\n"


def _time(row: dict[str, Any], side: str, call: str) -> float | None:
    return row.get(side, {}).get(call, {}).get("seconds")


def _cells(rows: list[dict[str, Any]], call: str) -> str:
    times = [(_time(row, "ours", call), _time(row, "theirs", call)) for row in rows]
    both = [(a, b) for a, b in times if a and b]
    kinds = [sum((bool(a), bool(b)) == kind for a, b in times) for kind in ((True, False), (False, True), (False,) * 2)]
    cells = [len(rows), len(both), *(kinds if call == "first" else "---")]
    if len(both) < 2:
        return " | ".join(map(str, [*cells, *"-----"]))
    low, median, high = statistics.quantiles([a / b for a, b in both], n=4, method="inclusive")
    cells += [f"{median:.2f}", f"{low:.2f} to {high:.2f}", sum(a < b for a, b in both)]
    return " | ".join(map(str, [*cells, *(f"{statistics.median(side):.2f}" for side in zip(*both, strict=True))]))
