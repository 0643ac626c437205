"""A profile of ``configs/`` on all of CIFAR-10, beside the same network never grown for the same FLOPs.

``python benchmarks/cifar10.py cpu-15gb`` runs ``neuroexapt grow --config configs/cpu-15gb.yaml`` in its own process
(finished runs are read, not repeated; interrupted ones go on), then the baseline: ``max_events`` 0, as many epochs, and
as many images in each as make the total FLOPs equal. The data are two Parquet files in ``$NEUROEXAPT_DATA/cifar10``
(``../shared/data`` by default). Journals, figures and a page go to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from neuroexapt.config import GrowConfig, from_json, load_config
from neuroexapt.events import EpochFinished, Event, RunFinished, RunStarted, VerdictReached, event_to_json
from neuroexapt.report import read_journal

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MIB = 2**20


def events_of(run_dir: Path, arguments: list[str]) -> list[Event]:
    """Runs or resumes one arm unless its journal is complete; returns its events."""
    journal = run_dir / "journal.jsonl"
    if not (journal.exists() and isinstance(read_journal(journal)[-1], RunFinished)):
        options = ["--resume", str(run_dir)] if journal.exists() else [*arguments, "--out", str(run_dir)]
        subprocess.run([sys.executable, "-m", "neuroexapt.cli.main", "grow", *options], cwd=ROOT, check=True)
    return read_journal(journal)


def facts(events: list[Event]) -> dict[str, Any]:
    """The command, the verdicts and the closing figures of one arm."""
    started, finished = events[0], events[-1]
    assert isinstance(started, RunStarted)
    assert isinstance(finished, RunFinished)
    return {
        "command": without_folder(started.command),
        "versions": started.versions,
        "num_parameters_start": started.num_parameters,
        "flops_start": started.flops,
        "verdicts": [event_to_json(event) for event in events if isinstance(event, VerdictReached)],
        "finished": event_to_json(finished),
    }


def without_folder(command: str) -> str:
    """Returns a command without its ``--out``, which says something about this machine only."""
    return re.sub(r' --out [^ "]+', "", command)


def equal_flops(config: GrowConfig, grown: list[Event]) -> list[str]:
    """Returns the settings of the baseline: the seed network for the FLOPs of the grown run, in as many epochs."""
    started, finished = grown[0], grown[-1]
    assert isinstance(started, RunStarted)
    assert isinstance(finished, RunFinished)
    evaluated = (config.train.epochs + 1) * started.num_validation + started.num_test
    samples = (finished.total_flops / started.flops - evaluated) / (3 * config.train.epochs)
    whole = math.ceil(samples / started.num_train)  # an epoch is at most all images, so there may have to be more
    epochs, per_epoch = config.train.epochs * whole, math.ceil(samples / whole)
    scaled = {"train.epochs": epochs, "train.warmup_epochs": config.train.warmup_epochs * whole}
    if config.morphogenesis.last_epoch is not None:
        scaled["morphogenesis.last_epoch"] = config.morphogenesis.last_epoch * whole
    scaled |= {"train.epoch_samples": per_epoch, "morphogenesis.max_events": 0}
    return [part for key, value in scaled.items() for part in ("--set", f"{key}={value}")]


def page(name: str, runs: dict[str, dict[str, Any]]) -> list[str]:
    """The result as Markdown."""
    lines = [f"# `{name}` on CIFAR-10", ""]
    lines += [f"`{run['command']}`" for run in runs.values()]
    lines += ["", "Seed 0; the machine was shared with other jobs, so minutes tell little and FLOPs all."]
    lines += [
        "",
        "| arm | test accuracy % | validation % | parameters | MFLOP a sample | GFLOP in all | kept / rolled back "
        "| minutes | bytes of a step, predicted | measured | peak of the process |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, run in runs.items():
        end = run["finished"]
        lines.append(
            f"| {arm} | {100 * end['test_accuracy']:.2f} | {100 * end['validation_accuracy']:.2f} "
            f"| {run['num_parameters_start']:,} -> {end['num_parameters']:,} "
            f"| {run['flops_start'] / 1e6:.0f} -> {end['flops'] / 1e6:.0f} | {end['total_flops'] / 1e9:,.0f} "
            f"| {end['num_accepted']} / {end['num_rolled_back']} | {end['seconds'] / 60:.1f} "
            f"| {end['predicted_bytes'] / MIB:.0f} MiB | {end['measured_bytes'] / MIB:.0f} MiB "
            f"| {end['peak_memory_bytes'] / MIB:.0f} MiB |"
        )
    return lines


def verdicts(events: list[Event]) -> list[str]:
    """What was tried, and what it gained."""
    lines = ["", "| epochs | tried | steps | relative gain, 95 % | outcome |", "|---|---|---|---|---|"]
    lines += [
        f"| {v.position:.2f} | {v.description} | {v.trial_steps} | {100 * v.relative_gain:+.2f} % "
        f"({100 * v.low:+.2f} to {100 * v.high:+.2f}) "
        f"| {'kept' if v.accepted else 'rolled back'} |"
        for v in events
        if isinstance(v, VerdictReached)
    ]
    return lines


def curve(events: list[Event]) -> list[str]:
    """Validation accuracy epoch by epoch, of the arm that stayed."""
    lines = [
        "",
        "| epoch | stage or arm | learning rate | validation % | parameters | seconds |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {e.epoch} | {e.arm} | {e.learning_rate:.4f} | {100 * e.validation_accuracy:.2f} | {e.num_parameters:,} "
        f"| {e.seconds:.0f} |"
        for e in events
        if isinstance(e, EpochFinished)
    ]
    return lines


def main() -> None:
    """Runs what is missing and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile", choices=sorted(path.stem for path in (ROOT / "configs").glob("*.yaml")))
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10"))
    parser.add_argument("--without-baseline", action="store_true", help="run the profile alone")
    options = parser.parse_args()
    name, file = options.profile, f"configs/{options.profile}.yaml"
    data = f"{os.environ.get('NEUROEXAPT_DATA', '../shared/data')}/cifar10"
    common = ["--data", data, "--config", file]
    grown = events_of(options.out / name, common)
    arms = {"grown": grown}
    if not options.without_baseline:
        settings = equal_flops(from_json(GrowConfig, load_config(GrowConfig, ROOT / file)), grown)
        arms["never grown, equal FLOPs"] = events_of(options.out / f"{name}-baseline", [*common, *settings])
    runs = {arm: facts(events) for arm, events in arms.items()}
    text = "\n".join([*page(name, runs), *verdicts(grown), *curve(grown)]) + "\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    stem = f"cifar10-{name}"
    (RESULTS / f"{stem}.md").write_text(text, encoding="utf-8")
    (RESULTS / f"{stem}.json").write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    journal = (options.out / name / "journal.jsonl").read_text(encoding="utf-8")
    (RESULTS / f"{stem}.journal.jsonl").write_text(without_folder(journal), encoding="utf-8")


if __name__ == "__main__":
    main()
