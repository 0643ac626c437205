"""Seconds until all channel groups are known, ours and torch-pruning's, on every model of the list but the giants.

A model has a process of its own, one thread, a time limit. Timed, in processor seconds, are ``nx.trace`` and ``groups``
against ``build_dependency`` and ``get_all_groups``: the same model built twice, the same full-size batch. Both have
worked on a tiny model before, and which of the two begins is drawn from the seed. A first call that took under
``SHORT`` seconds is repeated on the same model: the first call is stated and the second. One JSON line a model in
``--results``, a summary in ``--summary``; models that have a line are not measured again. Their order is drawn as well,
so that a run that was stopped is a sample.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from survey.build_summary import CALLS, SHORT, SIDES, summary
from survey.environment import environment
from survey.model_list import FAMILIES, GIANTS, NAMES, SEED, build, inputs
from survey.peer import peer_build
from survey.runner import read_rows
from torch import nn

import neuroexapt as nx

RESULTS = Path(__file__).parent / "results"


def ours(model: nn.Module, probe: Any) -> dict[str, Any]:
    """Returns the time and the number of our groups; a model that is refused says so."""
    gc.collect()
    started = time.process_time()
    try:
        groups = nx.trace(model, probe).groups
    except Exception as error:  # no answer is counted, whatever the reason
        return {"failed": f"{type(error).__name__}: {str(error)[:160]}"}
    return {"seconds": round(time.process_time() - started, 3), "num_groups": len(groups)}


def measure(name: str, path: Path, peer_seconds: float) -> None:
    """Measures one model and rewrites its file after every call."""
    row: dict[str, Any] = {"model": name, "seed": SEED, "environment": environment()}
    ours(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)), torch.zeros(2, 1, 2, 2))
    probe = inputs(name, seed=1, is_full_size=True)
    row["order"] = random.Random(f"{SEED} {name}").sample(SIDES, 2)
    for side in row["order"]:
        model, row[side] = build(name), {}
        for call in CALLS:
            row[side][call] = ours(model, probe) if side == "ours" else peer_build(model, probe, peer_seconds)
            path.write_text(json.dumps(row), encoding="utf-8")
            if row[side][call].get("seconds", SHORT) >= SHORT:
                break


def in_own_process(name: str, options: argparse.Namespace) -> None:
    """Measures one model and appends its line; what crashed or did not end keeps what it had."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "row.json"
        command = [sys.executable, __file__, "--child", name, str(path), "--peer-seconds", str(options.peer_seconds)]
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        row = {"model": name}
        try:
            ended = subprocess.run(command, env=env, timeout=options.seconds, check=False, capture_output=True)
            trouble = f"exit code {ended.returncode}: {ended.stderr[-200:]!r}" if ended.returncode else ""
        except subprocess.TimeoutExpired:
            trouble = f"no end in {options.seconds:.0f} s"
        row = json.loads(path.read_text()) if path.exists() else row
    row |= {"died": trouble} if trouble else {}
    with options.results.open("a", encoding="utf-8") as out:
        out.write(json.dumps(row) + "\n")
    print(name, *(f"{side} {row.get(side)}" for side in SIDES), trouble, flush=True)


def main() -> None:
    """Reads the arguments, measures what has no line yet, and writes the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(FAMILIES), default=list(FAMILIES), help="families")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time, one thread each")
    parser.add_argument("--seconds", type=float, default=180, help="on the clock for one model, everything counted")
    parser.add_argument("--peer-seconds", type=float, default=20, help="of processor time for a call of torch-pruning")
    parser.add_argument("--results", type=Path, default=RESULTS / "build_seconds.jsonl")
    parser.add_argument("--summary", type=Path, default=RESULTS / "build_seconds.md")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        warnings.filterwarnings("ignore")
        torch.set_num_threads(1)
        return measure(options.child[0], Path(options.child[1]), options.peer_seconds)
    done = {row["model"] for row in read_rows(options.results)} | set(GIANTS)
    names = [name for name in NAMES if name.partition("/")[0] in options.only and name not in done]
    random.Random(SEED).shuffle(names)
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda name: in_own_process(name, options), names))
    options.summary.write_text(summary(read_rows(options.results), options.peer_seconds), encoding="utf-8")


if __name__ == "__main__":
    main()
