"""The run: one process a model, with a time limit; finished rows are kept, a second start does the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from survey.compact import compact
from survey.model_list import GIANTS

_SLACK_SECONDS = 90  # building and importing, and a stage that has begun may end
_WALL_PER_CPU = 3  # the process counts its own processor time; other work on the machine must not cut a row short
_giant = threading.Lock()
_file = threading.Lock()


def run(names: Sequence[str], results: Path, jobs: int, seconds: float, peer_seconds: float) -> None:
    """Measures every model that has no row yet."""
    todo = [name for name in names if name not in {row["model"] for row in read_rows(results)}]
    results.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(jobs) as pool:
        for index, row in enumerate(pool.map(lambda name: _one(name, results, seconds, peer_seconds), todo), 1):
            print(f"{index}/{len(todo)} {row['model']}: {_in_short(row)}", flush=True)


def read_rows(results: Path) -> list[dict[str, Any]]:
    """Returns all rows that are finished."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def _one(name: str, results: Path, seconds: float, peer_seconds: float) -> dict[str, Any]:
    if name in GIANTS:
        with _giant:
            row = _in_own_process(name, seconds, peer_seconds)
    else:
        row = _in_own_process(name, seconds, peer_seconds)
    with _file, results.open("a", encoding="utf-8") as out:
        out.write(json.dumps(compact(row)) + "\n")
    return row


def _in_own_process(name: str, seconds: float, peer_seconds: float) -> dict[str, Any]:
    limit = _WALL_PER_CPU * (seconds + 3 * peer_seconds + _SLACK_SECONDS)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "row.json"
        command = [sys.executable, "-m", "survey.measure", name, str(path), str(seconds), str(peer_seconds)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        try:
            ended = subprocess.run(
                command, env=environment, timeout=limit, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            trouble = "" if ended.returncode == 0 else _last_line(ended.stderr, ended.returncode)
        except subprocess.TimeoutExpired:
            trouble = f"no end in {limit:.0f} s"
        row = json.loads(path.read_text()) if path.exists() else {"model": name}
    if trouble:
        row["died"] = f"{trouble}, in stage {row.pop('stage', 'start')}"
    row["wall_seconds"] = round(time.perf_counter() - started, 1)
    return row


def _last_line(stderr: bytes, code: int) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    return f"exit code {code}: {lines[-1][:200] if lines else 'no message'}"


def _in_short(row: dict[str, Any]) -> str:
    outcomes = [o["outcome"] for o in row.get("axes", {}).get("outcomes", [])]
    counts = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in dict.fromkeys(outcomes))
    crashes = [f"{k}: {v['crash']}" for k, v in row.items() if isinstance(v, dict) and "crash" in v]
    return "; ".join(filter(None, [counts, *crashes, row.get("died", ""), f"{row['wall_seconds']} s"]))
