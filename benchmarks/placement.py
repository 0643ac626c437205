"""Where to grow: evidence per added FLOP against the uniform baseline, and against never growing, on digits.

Each row is one run of ``neuroexapt grow`` with its own seed; journals stay in the output folder, finished runs are not
repeated. ``python benchmarks/placement.py --out runs/placement --seeds 5``
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from neuroexapt.cli.main import main as neuroexapt
from neuroexapt.events import RunFinished
from neuroexapt.report import read_journal

ARMS = {
    "uniform": ["--policy", "uniform"],
    "evidence": ["--policy", "evidence"],
    "never grown": ["--max-events", "0"],
}


def finished(run_dir: Path, arguments: list[str]) -> RunFinished:
    """Runs one arm unless its journal is complete, and returns its closing figures."""
    journal = run_dir / "journal.jsonl"
    if not journal.exists() or not isinstance(read_journal(journal)[-1], RunFinished):
        code = neuroexapt(["grow", "--out", str(run_dir), *arguments])
        if code:
            raise SystemExit(f"{run_dir}: the run ended with exit code {code}")
    last = read_journal(journal)[-1]
    assert isinstance(last, RunFinished)
    return last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/placement"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    rows = {
        arm: [finished(options.out / f"{arm.replace(' ', '-')}-{seed}", ["--seed", str(seed), *arguments])
              for seed in range(options.seeds)]
        for arm, arguments in ARMS.items()
    }  # fmt: skip
    lines = [
        "| arm | test accuracy, mean (sd) | each seed | parameters at the end | GFLOP in all | kept / rolled back |",
        "|---|---|---|---|---|---|",
    ]
    for arm, found in rows.items():
        accuracies = [100 * f.test_accuracy for f in found]
        lines.append(
            f"| {arm} | {statistics.mean(accuracies):.2f} ({statistics.stdev(accuracies):.2f}) "
            f"| {' '.join(f'{a:.1f}' for a in accuracies)} "
            f"| {statistics.mean(f.num_parameters for f in found):,.0f} "
            f"| {statistics.mean(f.total_flops for f in found) / 1e9:.0f} "
            f"| {statistics.mean(f.num_accepted for f in found):.1f} / "
            f"{statistics.mean(f.num_rolled_back for f in found):.1f} |"
        )
    (options.out / "RESULTS.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    (options.out / "results.json").write_text(
        json.dumps({arm: [f.test_accuracy for f in found] for arm, found in rows.items()}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
