"""Where to grow: evidence per added FLOP against the uniform baseline, and against never growing, on digits.

Each row is one run of ``neuroexapt grow`` with its own seed; finished runs are not repeated. They stay in ``--out``;
their commands, verdicts and closing figures go to ``benchmarks/results/placement.json``, the table to ``placement.md``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from neuroexapt.cli.main import main as neuroexapt
from neuroexapt.events import RunFinished, RunStarted, VerdictReached, event_to_json
from neuroexapt.report import read_journal

ARMS = {
    "uniform": ["--policy", "uniform"],
    "evidence": ["--policy", "evidence"],
    "never grown": ["--max-events", "0"],
}
RESULTS = Path(__file__).parent / "results"


def facts(run_dir: Path, arguments: list[str]) -> dict[str, Any]:
    """Runs one arm unless its journal is complete; returns its command, verdicts and closing figures."""
    journal = run_dir / "journal.jsonl"
    command = ["grow", "--out", str(run_dir), *arguments]
    is_done = journal.exists() and isinstance(read_journal(journal)[-1], RunFinished)
    if not is_done and (code := neuroexapt(command)):
        raise SystemExit(f"{run_dir}: the run ended with exit code {code}")
    events = read_journal(journal)
    started = next(e for e in events if isinstance(e, RunStarted))
    return {
        "command": " ".join(["neuroexapt", *command]),
        "versions": started.versions,
        "config": started.config,
        "verdicts": [event_to_json(e) for e in events if isinstance(e, VerdictReached)],
        "finished": event_to_json(events[-1]),
    }


def row(arm: str, runs: list[dict[str, Any]]) -> str:
    """One line of the table."""

    def mean(key: str) -> float:
        return statistics.mean(run["finished"][key] for run in runs)

    accuracies = [100 * run["finished"]["test_accuracy"] for run in runs]
    return (
        f"| {arm} | {statistics.mean(accuracies):.2f} ({statistics.stdev(accuracies):.2f}) "
        f"| {' '.join(f'{a:.1f}' for a in accuracies)} | {mean('num_parameters'):,.0f} "
        f"| {mean('total_flops') / 1e9:.0f} | {mean('num_accepted'):.1f} / {mean('num_rolled_back'):.1f} |"
    )


def main() -> None:
    """Runs what is missing and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/placement"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {}
    for arm, arguments in ARMS.items():
        name = arm.replace(" ", "-")
        runs[arm] = [
            facts(options.out / f"{name}-{seed}", ["--seed", str(seed), *arguments]) for seed in range(options.seeds)
        ]
    lines = [
        "| arm | test accuracy %, mean (sd) | each seed | parameters at the end | GFLOP in all | kept / rolled back |",
        "|---|---|---|---|---|---|",
        *(row(arm, found) for arm, found in runs.items()),
    ]
    print("\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "placement.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (RESULTS / "placement.json").write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
