"""One row: everything that is measured on one model, stage by stage, cheap and telling stages first.

Run as ``python -m survey.measure NAME FILE SECONDS PEER_SECONDS``; the file is rewritten after every stage, so
that a row that runs out of time keeps what it has.
"""

from __future__ import annotations

import json
import random
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import neuroexapt as nx
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import permutation_error
from survey import observe
from survey.edits import DOUBLE_TOLERANCE, TOLERANCE, Bench, Outcome, planned, sample_axes, tried
from survey.environment import environment
from survey.memory import peak_memory
from survey.model_list import GIANT, SEED, build, inputs
from survey.peer import measure_peer, peer_build
from survey.training import edits_in_training

LARGE = 30_000_000  # parameters; above, no float64 copy, unless an edit is doubtful
NUM_APPLIED_TO_GIANTS = 4
NUM_TRAINED = 3  # edits of each model that are followed by training steps
NUM_DOUBLE = 5  # exact edits of each model that are repeated in float64
LAST_AXIS = 0.6  # fraction of a model's time after which no further axis is applied
LAST_START = 0.85  # and no further stage begins


class Row:
    """The measurements of one model as they come in."""

    def __init__(self, name: str, path: Path, seconds: float) -> None:
        self.name = name
        self.path = path
        self.started = time.process_time()
        self.seconds = seconds
        self.peer_time = 0.0
        self.values: dict[str, Any] = {"model": name, "seed": SEED, "environment": environment()}

    def time_used(self) -> float:
        """Fraction of the processor time for this model that is gone, the other library's not counted."""
        return (time.process_time() - self.started - self.peer_time) / self.seconds

    def stage(self, name: str, measure: Callable[[], dict[str, Any]]) -> bool:
        """Runs one stage, notes what it found or how it crashed, and writes the file; returns whether it went well."""
        self.values["stage"] = name
        self._write()
        started = time.perf_counter()
        try:
            found = measure()
        except Exception as error:  # a crash of one stage is a finding; the other stages still count
            found = {"crash": f"{type(error).__name__}: {str(error)[:300]}"}
        found["stage_seconds"] = round(time.perf_counter() - started, 2)
        self.values[name] = found
        del self.values["stage"]
        self._write()
        return "crash" not in found

    def _write(self) -> None:
        self.path.write_text(json.dumps(self.values), encoding="utf-8")


def measure(name: str, path: Path, seconds: float, peer_seconds: float) -> None:
    """Measures one model and writes its row."""
    row = Row(name, path, seconds)
    _warm_up()
    probe, unseen = inputs(name, seed=1), inputs(name, seed=2)
    bench: list[Bench] = []
    row.stage("size", lambda: _model(build(name)))
    is_traced = row.stage("trace", lambda: _trace(build(name), inputs(name, seed=1, is_full_size=True)))
    started = time.process_time()
    row.stage("peer_build", lambda: peer_build(build(name), inputs(name, seed=1, is_full_size=True), peer_seconds))
    row.peer_time = time.process_time() - started
    if is_traced and row.stage("law", lambda: _law(build(name), probe, unseen, bench)):
        row.stage("groups", lambda: _groups(bench[0]))
        applied: list[nx.Mutation] = []
        row.stage("axes", lambda: _axes(bench[0], row, applied))
        row.stage("kinds", lambda: _kinds(bench[0], name, applied))
        bench.clear()
        if row.time_used() < LAST_START:
            row.stage("training", lambda: edits_in_training(name, _to_train(row, applied), probe, unseen))
        largest = GIANT if _doubtful(row.values) else LARGE
        if row.time_used() < LAST_START and row.values["size"]["parameters"] <= largest:
            row.stage("double", lambda: _double(name, applied, row.values, probe, unseen))
    row.stage("peer", lambda: measure_peer(name, probe, unseen, row.values["peer_build"], peer_seconds))


def _warm_up() -> None:
    """Imports what the first trace imports, so that it is not counted as its memory or time."""
    tiny = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1))
    nx.Surgeon(tiny, torch.zeros(2, 1, 2, 2)).candidates()


def _model(model: nn.Module) -> dict[str, Any]:
    return {"parameters": sum(p.numel() for p in model.parameters()), "class": type(model).__name__}


def _trace(model: nn.Module, probe: Any) -> dict[str, Any]:
    with peak_memory() as peak:
        started = time.process_time()
        graph = nx.trace(model, probe)
        groups = graph.groups
        seconds = time.process_time() - started
    num_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    return {
        "seconds": round(seconds, 3),
        "num_groups": len(groups),
        "unknown_operators": dict(graph.unknown_operators),
        "notes": [note[:200] for note in graph.notes],
        "extra_mib": round(peak.extra_bytes / 2**20, 1),
        "extra_fraction": round(peak.extra_bytes / num_bytes, 4),
    }


def _law(model: nn.Module, probe: Any, unseen: Any, bench: list[Bench]) -> dict[str, Any]:
    """All free axes permuted at once; then the library's own self-test, which finds the culprits."""
    graph = nx.trace(model, probe)
    error = permutation_error(graph, torch.Generator().manual_seed(SEED), [g for g in graph.groups if not g.pin_reason])
    free = {group.name for group in graph.groups if not group.pin_reason}
    surgeon = nx.Surgeon(model, probe)
    started = time.process_time()
    distrusted = [g.name for g in surgeon.graph.groups if g.name in free and g.pin_reason]
    seconds = time.process_time() - started
    bench.append(Bench(model, surgeon, unseen))
    return {
        "error": float(f"{error:.3g}"),
        "num_free": len(free),
        "distrusted": distrusted,
        "seconds_trace_and_self_test": round(seconds, 3),
    }


def _groups(bench: Bench) -> dict[str, Any]:
    graph = bench.surgeon.graph
    started = time.process_time()
    growing = [group for group in graph.groups if group.can_widen]
    seconds = time.process_time() - started
    reached = {member.module for group in growing for member in group.members}
    layers = {
        path: sum(p.numel() for p in module.parameters(recurse=False))
        for path, module in bench.model.named_modules()
        if any(p.dim() >= 2 for p in module.parameters(recurse=False))
    }
    return {
        "num_can_widen": len(growing),
        "seconds_can_widen": round(seconds, 2),
        "pinned": {g.name: g.pin_reason for g in graph.groups if g.pin_reason},
        "not_growing": {g.name: g.reason for g in graph.groups if not g.pin_reason and g.reason},
        "num_layers": len(layers),
        "num_layers_growing": sum(path in reached for path in layers),
        "layers_not_growing": [path for path in layers if path not in reached],
        "parameter_share": round(sum(n for path, n in layers.items() if path in reached) / sum(layers.values()), 4),
    }


def _axes(bench: Bench, row: Row, applied: list[nx.Mutation]) -> dict[str, Any]:
    is_giant = row.values["size"]["parameters"] > GIANT
    asked = [planned(bench, g, i) for i, g in enumerate(sample_axes(bench.surgeon.graph, row.name, SEED))]
    num_applied = 0
    for outcome, mutation in asked:
        if mutation is None:
            continue
        if row.time_used() > LAST_AXIS or (is_giant and num_applied >= NUM_APPLIED_TO_GIANTS):
            outcome.outcome = "not applied"
            continue
        num_applied += 1
        if tried(bench, outcome, mutation).outcome == "exact":
            applied.append(mutation)
    return {"num_applied": num_applied, "outcomes": [outcome.as_json() for outcome, _ in asked]}


def _kinds(bench: Bench, name: str, applied: list[nx.Mutation]) -> dict[str, Any]:
    """One random candidate of every other kind of mutation."""
    by_kind: dict[str, list[nx.Mutation]] = {}
    for mutation in nx.candidates(bench.surgeon.graph):
        if not isinstance(mutation, nx.Widen):
            by_kind.setdefault(type(mutation).__name__, []).append(mutation)
    outcomes = []
    for kind, found in by_kind.items():
        mutation = random.Random(f"{SEED} {name} {kind}").choice(found)
        outcome = tried(bench, Outcome(axis=mutation.place, kind=kind, resizable=True), mutation)
        outcomes.append(outcome.as_json())
        if outcome.outcome == "exact":
            applied.append(mutation)
    return {"num_candidates": {kind: len(found) for kind, found in by_kind.items()}, "outcomes": outcomes}


def _to_train(row: Row, applied: list[nx.Mutation]) -> list[nx.Mutation]:
    """Some of the axes that were widened, and everything of the other kinds; one of a giant."""
    widened = [m for m in applied if isinstance(m, nx.Widen)]
    chosen = widened[:NUM_TRAINED] + [m for m in applied if not isinstance(m, nx.Widen)]
    return chosen[:1] if row.values["size"]["parameters"] > GIANT else chosen


def _doubtful(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [o for o in values["axes"]["outcomes"] if o["outcome"] in ("wrong", "taken back")]


def _double(name: str, applied: list[nx.Mutation], values: dict[str, Any], probe: Any, unseen: Any) -> dict[str, Any]:
    """Repeats edits in float64: some that were exact, and all that were not, to tell rounding from a wrong answer."""
    doubtful = [nx.Widen(axis=o["axis"], to=o["to"]) for o in _doubtful(values)]
    mutations = doubtful + applied[:NUM_DOUBLE]
    model = build(name).double()
    probe, unseen = observe.to_double(probe), observe.to_double(unseen)
    try:
        with observe.SinglePrecision() as single, torch.no_grad():
            observe.call(model, unseen)
    except RuntimeError as error:  # a model that has operators for lower precision only
        return {"not_run": str(error)[:120]}
    bench = Bench(model, nx.Surgeon(model, probe), unseen)
    changes: dict[str, float | str] = {}
    for mutation in mutations:
        try:
            patch = bench.surgeon.apply(mutation)
        except SurgeryError as error:
            changes[mutation.place] = str(error)
            continue
        changes[mutation.place] = float(f"{bench.unseen_change():.3g}")
        bench.surgeon.revert(patch)
    measured = [change for change in changes.values() if isinstance(change, float)]
    return {
        "changes": changes,
        "worst": max(measured, default=0.0),
        "computes_in_single": single.seen,
        "tolerance": TOLERANCE if single.seen else DOUBLE_TOLERANCE,
    }


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    measure(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
