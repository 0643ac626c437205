"""``benchmarks/RESULTS.md``, made of the stored rows and of nothing else."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import neuroexapt as nx
from growth.arms import ARMS
from growth.curves import draw
from growth.harness import TUNING
from growth.statistics import mean_sd, paired
from growth.store import FOLDER, Store
from growth.suites import SUITES
from growth.task import Task

PAGE = FOLDER.parents[1] / "RESULTS.md"
_REFERENCES = ("scratch = ours", "scratch = scheduled", "scratch")  # what differences are taken to, if it was run
_INTRODUCTION = """\
# Growth against training from scratch

Written by `python benchmarks/growth_suites.py` from the rows in `benchmarks/results/growth/`, one run a line, each
with its seed, command and versions. All arms of a suite share data, order of the data for each seed, warm-up in
steps, learning rate and its shape (a cosine to the end of the arm's own steps). The learning rate was chosen on
validation data for the full network from scratch. Every FLOP counts: training (three times the forward pass), what
was trained and thrown away, statistics, scores, verification of edits, and validation that something was decided by.
Test data decide nothing. Differences are paired by seed, with the 95 % interval of Student's t; **bold** where it
excludes 0. Seconds are of one thread, processor time, growth apart. Peak memory is of the whole process.
"""


def write_page(folder: Path = FOLDER, page: Path = PAGE) -> None:
    """Draws the curves and writes the page."""
    for name, task in SUITES.items():
        store = Store(name, folder)
        if store.rows:
            draw(task, store, folder / f"{name}.png")
    page.write_text(page_text(folder), encoding="utf-8")


def page_text(folder: Path = FOLDER) -> str:
    """Returns the page as the rows give it."""
    parts = [_INTRODUCTION]
    for name, task in SUITES.items():
        store = Store(name, folder)
        if store.rows:
            parts.append(_suite(task, store))
    return "\n".join(parts)


def _suite(task: Task, store: Store) -> str:
    arms = [name for name in ARMS if store.of(name)]
    reference = next((name for name in _REFERENCES if name in arms), "")
    positions = ", ".join(f"{100 * event:g}" for event in task.events)
    lines = [
        f"## {task.title}",
        "",
        f"{task.steps} steps of {task.batch_size}{_longer(task)}, learning rate {task.learning_rate:g}, "
        f"warm-up {task.warmup_steps} steps{_held(task)}, scheduled growth at {positions} % of the steps. "
        f"Chosen on validation loss of the full network: {_tuning(store)}.",
        "",
        f"*ours* is set otherwise than by default in {_settings(task)}.",
        "",
        f'| | arm | {task.score.name} | minus "{reference}" | minus "scratch" | GFLOP '
        "| of these not training, % | parameters | CPU s | of these growth, % | peak MiB | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        *(_row(name, store, reference) for name in arms),
        "",
        *(f"- {ARMS[name].letter}, *{name}*: {ARMS[name].meaning}." for name in arms),
        "",
        *_bars(task, store),
        f"![score against training FLOPs](results/growth/{task.name}.png)",
        "",
    ]
    return "\n".join(lines)


def _longer(task: Task) -> str:
    return f" ({task.growth_steps} in the arms that grow)" if task.growth_steps else ""


def _held(task: Task) -> str:
    return f", cosine from {100 * task.hold:g} % of the steps on" if task.hold else ""


def _settings(task: Task) -> str:
    default, names = nx.MorphogenesisConfig(), [f.name for f in dataclasses.fields(task.ours)]
    found = {name: getattr(task.ours, name) for name in names if getattr(task.ours, name) != getattr(default, name)}
    return ", ".join(f"`{name}` {_plain(value)}" for name, value in found.items()) or "nothing"


def _plain(value: Any) -> str:
    return (
        " ".join(map(_plain, value))
        if isinstance(value, tuple)
        else f"{value:.4g}"
        if isinstance(value, float)
        else str(value)
    )


def _bars(task: Task, store: Store) -> list[str]:
    rows = [row for bar in task.bars if (row := bar.row(store))]
    return ["| arm | asked | measured | met |", "|---|---|---|---|", *rows, ""] if rows else []


def _tuning(store: Store) -> str:
    names = dict.fromkeys(row["arm"] for row in store.rows if row["arm"].startswith(TUNING))
    found = [f"{n.removeprefix(TUNING).strip()}: {_mean(store.of(n), 'validation_loss'):.4f}" for n in names]
    return ", ".join(found) or "not measured"


def _row(name: str, store: Store, reference: str) -> str:
    rows = store.of(name)
    flops = _mean(rows, "total_flops")
    cpu, growth = (statistics.mean(row["seconds"][key] for row in rows) for key in ("cpu", "growth_cpu"))
    cells = [
        ARMS[name].letter,
        name,
        mean_sd([row["score"] for row in rows]),
        *("" if name == other else _difference(rows, store.of(other)) for other in (reference, "scratch")),
        f"{flops / 1e9:.3g}",
        _apart(rows),
        f"{_mean(rows, 'parameters'):,.0f}",
        f"{cpu:.2f}",
        f"{100 * growth / cpu:.1f}",
        f"{max(row['peak_rss_mib'] for row in rows):.0f}",
        str(len(rows)),
    ]
    return f"| {' | '.join(cells)} |"


def _apart(rows: Sequence[Mapping[str, Any]]) -> str:
    """What was not training, as percent of everything, by purpose."""
    purposes = dict.fromkeys(purpose for row in rows for purpose in row["flops"] if purpose != "training")
    shares = {p: 100 * statistics.mean(row["flops"].get(p, 0) / row["total_flops"] for row in rows) for p in purposes}
    return f"{sum(shares.values()):.1f}: " + ", ".join(f"{p} {v:.1f}" for p, v in shares.items()) if shares else "0"


def _difference(rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> str:
    found = paired({r["seed"]: r["score"] for r in rows}, {r["seed"]: r["score"] for r in others})
    if found is None:
        return ""
    return f"**{found}**" if found.is_effect and math.isfinite(found.half_width) else str(found)


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return statistics.mean(row[key] for row in rows)
