"""The run of a suite: every arm with every seed, each in a process of its own, one thread; finished rows are kept."""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
import multiprocessing
import platform
import subprocess
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import neuroexapt as nx
from growth.arms import ARMS, Arm
from growth.peer import import_peer
from growth.store import Store
from growth.task import Task

TUNING = "learning rate"  # rows of the full network from scratch, from which the learning rate was chosen
_FIRST_TUNING_SEED = 100  # other weights and orders than any arm has
TUNING_SEEDS = 3
_REPOSITORY = Path(__file__).parents[2]


def run_suite(task: Task, store: Store, arms: Sequence[str], seeds: int | None = None) -> str:
    """Runs what has no row yet, arms in the order given, so an arm comes after the one that it is made equal to.

    Returns:
        Nothing, or the sentence that says why there are no data.
    """
    data = task.load()
    if isinstance(data, str):
        return data
    _warm_up()
    for name in arms:
        arm = ARMS[name]
        if name in task.without or (arm.needs and not _is_there(arm, name, task)):
            continue
        for seed in range(task.seeds if seeds is None else seeds):
            reference = store.find(arm.equal_to, seed) if arm.equal_to else {}
            if store.find(name, seed) is None and reference is not None:
                _add(task, store, name, seed, lambda arm=arm, seed=seed, row=reference: arm.run(task, data, seed, row))
    return ""


def tune(task: Task, store: Store) -> None:
    """Trains the full network from scratch with every learning rate of the task, on seeds that no arm has."""
    data = task.load()
    if isinstance(data, str):
        return
    _warm_up()
    for rate in task.learning_rates:
        name, tried = f"{TUNING} {rate:g}", dataclasses.replace(task, learning_rate=rate)
        for seed in range(_FIRST_TUNING_SEED, _FIRST_TUNING_SEED + TUNING_SEEDS):
            if store.find(name, seed) is None:
                _add(task, store, name, seed, lambda t=tried, s=seed: ARMS["scratch"].run(t, data, s, {}))


def _add(task: Task, store: Store, arm: str, seed: int, run: Callable[[], dict[str, Any]]) -> None:
    facts = _in_own_process(run)
    what = "--tune" if arm.startswith(TUNING) else f"--arms '{arm}'"
    command = f"python benchmarks/growth_suites.py --suites {task.name} {what}"
    row = {"suite": task.name, "arm": arm, "seed": seed, "command": command, "versions": versions(), **facts}
    store.add(row)
    print(
        f"{task.name} | {arm} | {seed}: {facts['score']:.2f}, {facts['total_flops'] / 1e9:.4g} GFLOP, "
        f"{facts['seconds']['cpu']:.2f} s ({facts['seconds']['growth_cpu']:.2f} growth)",
        flush=True,
    )


def _is_there(arm: Arm, name: str, task: Task) -> bool:
    """Says so where a package is not there; silent where it could not do this task anyway."""
    if not task.peer or (name.endswith("recipe") and "recipe" not in task.peer):
        return False
    if importlib.util.find_spec(arm.needs):
        import_peer()
        return True
    print(f"{task.name} | {name}: skipped, {arm.needs} is not installed here; `make growth` has a place for it.")
    return False


def _warm_up() -> None:
    """Edits a toy, so that what is imported and filled once in a process is no run's time; forks inherit it."""
    model, inputs = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(8, 4)
    optimizer = torch.optim.Adam(model.parameters())
    model(inputs).sum().backward()
    optimizer.step()
    nx.Surgeon(model, inputs, optimizer).apply(nx.Widen(axis="0", to=6))
    gc.collect()
    gc.freeze()


def _in_own_process(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Forks, so that peak memory is the run's own and nothing is left behind for the next one."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(there, run))
    process.start()
    there.close()
    try:
        facts: dict[str, Any] = here.recv()
    except EOFError as error:
        process.join()
        raise SystemExit(f"the run ended with exit code {process.exitcode}") from error
    process.join()
    return facts


def _send(pipe: Any, run: Callable[[], dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    pipe.send(run())
    pipe.close()


def versions() -> dict[str, str]:
    """Returns what a row was measured with."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=_REPOSITORY, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "neuroexapt": f"{version('neuroexapt')} {commit}".strip(),
    }
