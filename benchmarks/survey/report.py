"""The tables, in Markdown: a summary by family, reasons, faults, torch-pruning, and one row a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from survey.figures import (
    Row,
    get,
    grouped_reasons,
    handled,
    in_double,
    is_traced,
    law_holds,
    median,
    num_resizable,
    num_sampled,
    outcomes,
    peak_of_giants,
    share,
    time_ratios,
    unclean,
)
from survey.model_list import FAMILIES, SEED
from survey.torchvision_models import ANY_SIZE

MAX_REASONS = 40

_SUMMARY: Sequence[tuple[str, Callable[[Sequence[Row]], str]]] = (
    ("models", lambda rows: str(len(rows))),
    ("traced", lambda rows: share(sum(map(is_traced, rows)), len(rows))),
    ("with an operator that has no rule", lambda rows: str(sum(bool(_unknown(r)) for r in rows))),
    ("permutation law holds", lambda rows: share(sum(map(law_holds, rows)), len(rows))),
    ("axes distrusted by the self-test", lambda rows: str(sum(len(get(r, "law", "distrusted") or []) for r in rows))),
    ("weight layers in a group that can grow", lambda rows: share(*_sums(rows, "num_layers_growing", "num_layers"))),
    ("share of parameters in those, median", lambda rows: f"{100 * median(_shares(rows)):.1f} %"),
    ("axes that are pinned, not sampled", lambda rows: share(_num_pinned(rows), _num_groups(rows))),
    ("sampled axes resizable", lambda rows: share(sum(map(num_resizable, rows)), sum(map(num_sampled, rows)))),
    ("sampled axes widened exactly", lambda rows: share(_count(rows, "exact"), sum(map(num_sampled, rows)))),
    (
        "of these, in train mode too",
        lambda rows: str(sum(get(r, "axes", "num_in_train_mode", default=0) for r in rows)),
    ),
    ("repeated in float64: exact to 1e-9", lambda rows: share(*in_double(rows))),
    ("refused before anything changed", lambda rows: str(_count(rows, "refused"))),
    ("taken back after verification", lambda rows: str(len(unclean(rows, "taken back")))),
    ("planned and not applied (size, time)", lambda rows: str(_count(rows, "not applied"))),
    ("float32 rounding above 1e-5", lambda rows: str(len(unclean(rows, "rounding")))),
    ("other kinds of edit exact", lambda rows: share(*_kinds(rows))),
    ("edits followed by training", lambda rows: str(sum(get(r, "training", "edits", default=0) for r in rows))),
    ("grown tensors without a gradient", lambda rows: share(*_deaf(rows))),
    ("faults", lambda rows: str(len(unclean(rows, "fault")))),
    ("wrong answers", lambda rows: str(len(unclean(rows, "wrong")))),
    ("seconds to trace and group, median", lambda rows: f"{median(get(r, 'trace', 'seconds') for r in rows):.2f}"),
    ("seconds with self-test, median", lambda rows: f"{median(_self_test(rows)):.2f}"),
    ("trace: peak over the parameters, above 150 M", lambda rows: peak_of_giants(rows)),
    ("handled end to end, nothing wrong", lambda rows: share(sum(map(handled, rows)), len(rows))),
    ("torch-pruning: graph and groups", lambda rows: share(_peer(rows, "peer_build", "num_groups"), len(rows))),
    ("torch-pruning: end to end", lambda rows: share(_peer(rows, "peer", "end_to_end", "removed"), len(rows))),
    ("torch-pruning: silently wrong layers", lambda rows: share(*_peer_wrong(rows))),
    ("torch-pruning: seconds, median", lambda rows: f"{median(get(r, 'peer_build', 'seconds') for r in rows):.2f}"),
    ("our seconds over theirs, median", lambda rows: f"{median(time_ratios(rows)):.2f}"),
    ("peak MiB, ours / theirs, median", lambda rows: _memory(rows)),
)


def write_report(rows: Sequence[Row], path: Path, seconds: float, peer_seconds: float) -> None:
    """Writes the whole report."""
    order = {f"{family}/{name}": i for i, (family, name) in enumerate((f, n) for f in FAMILIES for n in FAMILIES[f])}
    rows = sorted(rows, key=lambda row: order.get(row["model"], len(order)))
    sections = [
        ["# Coverage"],
        _header(rows, seconds, peer_seconds),
        ["## Summary", "", *_summary(rows)],
        ["## Faults", "", *_bullets(unclean(rows, "fault"))],
        ["## Wrong answers", "", *_bullets(unclean(rows, "wrong"))],
        ["## Taken back", "", *_bullets(unclean(rows, "taken back"))],
        ["## Why sampled axes were refused", "", *_reasons(rows, "axes", "refused")],
        ["## Why axes are pinned", "", *_reasons(rows, "groups", "pinned")],
        ["## Why other axes cannot grow", "", *_reasons(rows, "groups", "not_growing")],
        ["## Models", "", *_models(rows)],
    ]
    path.write_text("\n".join(line for section in sections for line in [*section, ""]).rstrip() + "\n", "utf-8")


def _header(rows: Sequence[Row], seconds: float, peer_seconds: float) -> list[str]:
    environments = Counter(row.get("environment", "not noted") for row in rows)
    versions = "; ".join(f"{text} ({count} models)" for text, count in environments.most_common())
    return [
        f"`python benchmarks/coverage.py --seconds {seconds:.0f} --peer-seconds {peer_seconds:.0f}` "
        f"(`make coverage`); seed {SEED}; {versions}.",
        "",
        "Random weights, norms and constants moved off their zeros and ones. One process a model, one thread. "
        "Seconds (of the processor) and memory of the graph: first call, images of 224 pixels or the model's "
        f"own size, ours in eval and train mode. Edits: images of {ANY_SIZE} pixels where the model takes any "
        "size. Up to 20 axes a model are drawn among those that are not pinned; all are planned, all plans "
        "applied (4 above 150 M parameters), checked in eval and train mode on a batch that the library never "
        "saw, and taken back to the byte; 3 of them and every other kind of edit are applied again between "
        "training steps (1 above 150 M) and replayed on a fresh model; 5 are repeated in float64 up to 30 M.",
    ]


def _summary(rows: Sequence[Row]) -> list[str]:
    families = {family: [r for r in rows if r["model"].startswith(f"{family}/")] for family in FAMILIES}
    columns = {**{family: found for family, found in families.items() if found}, "all": list(rows)}
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for title, figure in _SUMMARY:
        lines.append(f"| {title} | {' | '.join(figure(found) for found in columns.values())} |")
    return lines


def _models(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| model | parameters | trace s | extra MiB | law | unknown operators | groups / pinned / can grow "
        "| layers growing | parameters reached | sampled: resizable / exact / refused | worst change | others exact "
        "| training | float64 worst | torch-pruning s | end to end | silently wrong |",
        "|---" * 17 + "|",
    ]
    return lines + [_model(row) for row in rows]


def _model(row: Row) -> str:
    counts, law = outcomes(row), get(row, "law", "error")
    pinned = sum(item[1] for item in get(row, "groups", "pinned", default=[]))
    training = get(row, "training", default={})
    cells = [
        row["model"],
        f"{get(row, 'size', 'parameters', default=0) / 1e6:.2f} M" if "size" in row else "-",
        str(get(row, "trace", "seconds", default=get(row, "trace", "crash", default="-"))),
        str(get(row, "trace", "extra_mib", default="-")),
        f"{law:.0e}" if law is not None else "-",
        ", ".join(_unknown(row)) or "0",
        f"{get(row, 'trace', 'num_groups')} / {pinned} / {get(row, 'groups', 'num_can_widen')}",
        share(get(row, "groups", "num_layers_growing", default=0), get(row, "groups", "num_layers", default=0)),
        f"{100 * get(row, 'groups', 'parameter_share', default=0):.1f} %",
        f"{num_sampled(row)}: {num_resizable(row)} / {counts['exact']} / {counts['refused']}",
        f"{get(row, 'axes', 'worst_change', default=0):.0e}",
        str(get(row, "kinds", "counts", default={}).get("exact", 0)),
        f"{training.get('edits', 0)} edits, {training.get('optimizer', '-')}, replay {training.get('replay', '-')}",
        f"{get(row, 'double', 'worst'):.0e}" if get(row, "double", "worst") is not None else "-",
        str(get(row, "peer_build", "seconds", default=get(row, "peer_build", "failed", default="-"))),
        str(get(row, "peer", "end_to_end", "removed", default=get(row, "peer", "end_to_end", "failed", default="-"))),
        str(get(row, "peer", "checked", "counts", default={}).get("changed the output", 0)),
    ]
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ")[:90] for cell in cells) + " |"


def _reasons(rows: Iterable[Row], *keys: str) -> list[str]:
    found = grouped_reasons(rows, *keys)
    lines = ["| axes | models | reason | example |", "|---|---|---|---|"]
    lines += [f"| {n} | {models} | {why.replace('|', '/')} | {example} |" for why, n, models, example in found]
    return lines[: MAX_REASONS + 2] if found else ["None."]


def _bullets(lines: Sequence[str]) -> list[str]:
    return [f"- {line}" for line in lines] or ["None."]


def _unknown(row: Row) -> list[str]:
    return sorted(get(row, "trace", "unknown_operators", default={}))


def _count(rows: Sequence[Row], outcome: str) -> int:
    return sum(outcomes(row)[outcome] for row in rows)


def _num_pinned(rows: Sequence[Row]) -> int:
    return sum(item[1] for row in rows for item in get(row, "groups", "pinned", default=[]))


def _num_groups(rows: Sequence[Row]) -> int:
    return sum(get(row, "trace", "num_groups", default=0) for row in rows)


def _sums(rows: Sequence[Row], part: str, whole: str) -> tuple[int, int]:
    return tuple(sum(get(r, "groups", key, default=0) for r in rows) for key in (part, whole))  # type: ignore[return-value]


def _shares(rows: Sequence[Row]) -> list[float | None]:
    return [get(row, "groups", "parameter_share") for row in rows]


def _self_test(rows: Sequence[Row]) -> list[float | None]:
    return [get(row, "law", "seconds_trace_and_self_test") for row in rows]


def _kinds(rows: Sequence[Row]) -> tuple[int, int]:
    found = [get(row, "kinds", "counts", default={}) for row in rows]
    return sum(counts.get("exact", 0) for counts in found), sum(sum(counts.values()) for counts in found)


def _deaf(rows: Sequence[Row]) -> tuple[int, int]:
    trained = [get(row, "training", default={}) for row in rows]
    return sum(len(t.get("deaf", [])) for t in trained), sum(t.get("grown_tensors", 0) for t in trained)


def _peer(rows: Sequence[Row], *keys: str) -> int:
    return sum(get(row, *keys) is not None for row in rows)


def _peer_wrong(rows: Sequence[Row]) -> tuple[int, int]:
    counts = [get(row, "peer", "checked", "counts", default={}) for row in rows]
    return sum(c.get("changed the output", 0) for c in counts), sum(sum(c.values()) for c in counts)


def _memory(rows: Sequence[Row]) -> str:
    ours, theirs = (median(get(r, key, "extra_mib") for r in rows) for key in ("trace", "peer_build"))
    return f"{ours:.1f} / {theirs:.1f}"
