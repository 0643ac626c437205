"""The baseline of a CIFAR-10 profile takes the FLOPs of the grown run, and what is kept names no folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from cifar10 import RESULTS, equal_flops, facts, without_folder

from neuroexapt.config import GrowConfig, TrainConfig, apply_overrides, from_json, to_json
from neuroexapt.events import RunFinished, RunStarted
from neuroexapt.report import read_journal

JOURNAL = RESULTS / "cifar10-cpu-15gb.journal.jsonl"


@pytest.mark.parametrize("factor", [1, 3, 10])
def test_the_baseline_takes_as_many_flops_as_the_grown_run(factor: int) -> None:
    events = read_journal(JOURNAL)
    started, finished = events[0], events[-1]
    assert isinstance(started, RunStarted)
    assert isinstance(finished, RunFinished)
    config = from_json(GrowConfig, started.config)
    object.__setattr__(finished, "total_flops", factor * finished.total_flops)
    record = apply_overrides(to_json(config), equal_flops(config, events)[1::2])
    train: TrainConfig = from_json(GrowConfig, record).train
    assert train.epoch_samples is not None
    assert train.epoch_samples <= started.num_train
    trained = 3 * train.epochs * train.epoch_samples
    evaluated = (train.epochs + 1) * started.num_validation + started.num_test
    assert (trained + evaluated) * started.flops == pytest.approx(finished.total_flops, rel=0.02)
    assert record["morphogenesis"]["max_events"] == 0


def test_what_is_kept_of_a_run_names_no_folder_of_this_machine() -> None:
    assert without_folder("neuroexapt grow --out /a/b --seed 1") == "neuroexapt grow --seed 1"
    assert without_folder('"command": "neuroexapt grow --out /a/b", "seed"') == '"command": "neuroexapt grow", "seed"'
    kept = [path.read_text(encoding="utf-8") for path in sorted(Path(RESULTS).glob("cifar10-*"))]
    assert kept
    assert not any("/tmp" in text or "--out" in text for text in kept)
    assert "--set threads=1" in facts(read_journal(JOURNAL))["command"]
