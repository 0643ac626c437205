"""Two real processes: the evidence is that of the global batch on both, and an error of one is an error of both."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from neuroexapt.analysis.measuring import measure_evidence
from neuroexapt.config import EvidenceConfig
from neuroexapt.errors import NeuroExaptError

ROUNDING = 1e-5  # of the last batch's rows in another batch
ALL, ONE = EvidenceConfig(), EvidenceConfig(estimators=("sensitivity",))  # the latter where nothing is to come of it
PATIENCE = timedelta(seconds=60)  # a hang is a failure and not the end of the run


def model_of() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 3))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return model


def batches_of(rank: int, processes: int, num_samples: int = 64) -> list[tuple[Tensor, Tensor]]:
    inputs = torch.randn(num_samples, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    labels = inputs.flatten(1)[:, :3].argmax(1)
    return list(zip(inputs[rank::processes].split(12), labels[rank::processes].split(12), strict=True))


def evidence_of(batches: list[tuple[Tensor, Tensor]], config: EvidenceConfig = ALL) -> Any:
    try:
        return measure_evidence(model_of(), batches, config=config).to_json()
    except NeuroExaptError as error:
        return f"{type(error).__name__}: {error}"


def scenarios(rank: int) -> list[Any]:
    """What one process finds: everything well; fewer samples on rank 1; none there; a NaN there; a code error there."""
    whole = batches_of(rank, 2)
    broken = [(inputs.clone(), labels) for inputs, labels in whole]
    broken[1][0][3] = torch.nan if rank == 1 else 0.0
    wrong = [(inputs, labels + 9 if rank == 1 else labels) for inputs, labels in whole]
    failing = [evidence_of(found, ONE) for found in (whole[rank * 9 :], broken, wrong)]
    return [evidence_of(whole), evidence_of(whole[: 2 - rank]), *failing]


@contextlib.contextmanager
def process_group(rank: int, store: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=store.as_uri(), rank=rank, world_size=2, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def second_process(store: Path, result: Path) -> None:
    torch.set_num_threads(1)
    with process_group(1, store):
        result.write_text(json.dumps(scenarios(1)))


def numbers_of(found: Any, where: str = "") -> dict[str, float]:
    """Every number by where it is."""
    if not isinstance(found, dict | list):
        return {where: found} if isinstance(found, int | float) else {}
    items = found.items() if isinstance(found, dict) else enumerate(found)
    return {path: number for key, value in items for path, number in numbers_of(value, f"{where}/{key}").items()}


def test_two_processes_find_what_one_finds_and_fail_together(tmp_path: Path) -> None:
    other = multiprocessing.get_context("spawn").Process(
        target=second_process, args=(tmp_path / "store", tmp_path / "result"), daemon=True
    )
    other.start()
    alone, fewer = evidence_of(batches_of(0, 1)), evidence_of(batches_of(0, 1, 24))
    try:
        with process_group(0, tmp_path / "store"):
            first = scenarios(0)
        other.join(PATIENCE.total_seconds())
    finally:
        other.kill()
    second = json.loads((tmp_path / "result").read_text())
    assert first == second
    assert numbers_of(first[0]) == pytest.approx(numbers_of(alone), rel=ROUNDING, abs=ROUNDING)
    assert first[1]["num_samples"] == 24
    assert numbers_of(first[1]["layers"]) == pytest.approx(numbers_of(fewer["layers"]), rel=ROUNDING, abs=ROUNDING)
    assert first[2].startswith("InputError: rank 1: evidence: found no batch")
    assert first[3].startswith("NonFiniteActivationError: rank 1: 0: activation")
    assert first[4].startswith("ModelError: rank 1: the loss: it failed with IndexError")
