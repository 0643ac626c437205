"""Runs of ``neuroexapt grow`` as rows of a table: started unless finished already, read from their journals."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from neuroexapt.cli.main import main as neuroexapt
from neuroexapt.events import RunFinished, RunStarted, VerdictReached, event_to_json
from neuroexapt.report import read_journal

RESULTS = Path(__file__).parent / "results"
HEADER = [
    "| arm | test accuracy %, mean (sd) | each seed | parameters at the end | GFLOP in all | kept / rolled back "
    "| seconds a run | peak MiB |",
    "|---|---|---|---|---|---|---|---|",
]


def facts(run_dir: Path, arguments: list[str]) -> dict[str, Any]:
    """Runs one arm unless its journal is complete; returns its command, verdicts and closing figures."""
    journal = run_dir / "journal.jsonl"
    is_done = journal.exists() and isinstance(read_journal(journal)[-1], RunFinished)
    if not is_done and (code := neuroexapt(["grow", "--out", str(run_dir), *arguments])):
        raise SystemExit(f"{run_dir}: the run ended with exit code {code}")
    events = read_journal(journal)
    started = next(e for e in events if isinstance(e, RunStarted))
    return {
        "command": " ".join(["neuroexapt", "grow", *arguments]),
        "versions": started.versions,
        "num_parameters_start": started.num_parameters,
        "verdicts": [event_to_json(e) for e in events if isinstance(e, VerdictReached)],
        "finished": event_to_json(events[-1]),
    }


def row(arm: str, runs: list[dict[str, Any]]) -> str:
    """One line of the table."""

    def mean(key: str) -> float:
        return statistics.mean(run["finished"][key] for run in runs)

    accuracies = [100 * run["finished"]["test_accuracy"] for run in runs]
    spread = f" ({statistics.stdev(accuracies):.2f})" if len(runs) > 1 else ""
    return (
        f"| {arm} | {statistics.mean(accuracies):.2f}{spread} "
        f"| {' '.join(f'{a:.1f}' for a in accuracies)} | {mean('num_parameters'):,.0f} "
        f"| {mean('total_flops') / 1e9:.0f} | {mean('num_accepted'):.1f} / {mean('num_rolled_back'):.1f} "
        f"| {mean('seconds'):.0f} | {mean('peak_memory_bytes') / 2**20:.0f} |"
    )


def compare(name: str, arms: dict[str, list[str]], out: Path, seeds: int) -> None:
    """Runs every arm with every seed, prints the table, and keeps facts and table under ``benchmarks/results``."""
    runs = {
        arm: [
            facts(out / f"{arm.replace(' ', '-')}-{seed}", ["--seed", str(seed), *arguments]) for seed in range(seeds)
        ]
        for arm, arguments in arms.items()
    }
    lines = [*HEADER, *(row(arm, found) for arm, found in runs.items())]
    print("\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.json").write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
