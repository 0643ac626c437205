"""A run that is killed goes on where it was: the same weights, the same choice, the same journal, to the bit."""

from __future__ import annotations

import os
import random
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from neuroexapt.config import DataConfig, GrowConfig, MorphogenesisConfig, TrainConfig, to_json
from neuroexapt.data import load_data
from neuroexapt.errors import CheckpointError, Interrupted
from neuroexapt.events import CheckpointRejected, RunFinished, RunResumed, VerdictReached
from neuroexapt.models import build_model
from neuroexapt.report import JournalWriter
from neuroexapt.report.journal import read_journal
from neuroexapt.train import CheckpointStore, Trainer
from neuroexapt.train.same_run import check_same_run
from train.tiny import CLASSES, Record, config, data, final_state, network

TOLD_BY_A_RESUMED_RUN = ("RunResumed", "CheckpointRejected", "RunStarted")  # RunStarted: versions, command

Work = Callable[[Path, bool], Any]  # run directory, whether to resume


def tiny_run(run_dir: Path, resume: bool, settings: GrowConfig | None = None, **how: Any) -> Any:
    trainer = Trainer(settings or config({"epochs": 10}), run_dir, [JournalWriter(run_dir / "journal.jsonl")], **how)
    return trainer.fit(network(), data(), resume=resume)


def journal(run_dir: Path) -> Record:
    record = Record()
    record.events = read_journal(run_dir / "journal.jsonl")
    return record


def assert_same_outcome(run_dir: Path, control: Path) -> None:
    assert final_state(run_dir) == final_state(control)
    assert journal(run_dir).facts(*TOLD_BY_A_RESUMED_RUN) == journal(control).facts(*TOLD_BY_A_RESUMED_RUN)
    assert len(journal(run_dir).of(RunFinished)) == 1
    assert not list((run_dir / "checkpoints").glob(".tmp-*"))


def killed_after(seconds: float, work: Callable[[], Any]) -> bool:
    """Runs ``work`` in a child of this warmed process and kills it; returns whether it ended before that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks beside threads; the child has none
        child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, "the child failed by itself"
            return True
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def run_through_kills(work: Work, run_dir: Path, num_kills: int, longest: float, seed: int) -> int:
    """Kills and resumes until the run is complete; returns how many kills met a living run."""
    moments = random.Random(seed)
    met = 0
    for _ in range(num_kills):
        if killed_after(moments.uniform(0.0, longest), lambda: work(run_dir, run_dir.exists())):
            return met
        met += 1
    work(run_dir, True)
    return met


@pytest.fixture(name="control", scope="module")
def fixture_control(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that is left alone."""
    run_dir = tmp_path_factory.mktemp("control") / "run"
    tiny_run(run_dir, False)
    assert [event.accepted for event in journal(run_dir).of(VerdictReached)].count(True) >= 2
    return run_dir


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_a_run_killed_at_random_moments_ends_as_if_nothing_had_happened(
    seed: int, tmp_path: Path, control: Path
) -> None:
    run_through_kills(tiny_run, tmp_path / "run", num_kills=3, longest=0.5, seed=seed)
    assert_same_outcome(tmp_path / "run", control)


@pytest.mark.parametrize(  # of 5 steps an epoch: before, in, between and after the events
    ("number", "step"), [(signal.SIGTERM, 1), (signal.SIGINT, 17), (signal.SIGTERM, 33), (signal.SIGINT, 41)]
)
def test_a_signal_ends_the_run_after_its_step_and_it_can_be_resumed(
    number: signal.Signals, step: int, tmp_path: Path, control: Path
) -> None:
    why: list[str] = []
    polled: list[int] = []

    def should_stop() -> str:
        polled.append(1)
        if len(polled) == step:
            os.kill(os.getpid(), number)
        return why[0] if why else ""

    before = signal.signal(number, lambda *_: why.append(f"interrupted by {number.name}"))
    try:
        with pytest.raises(Interrupted, match=rf"interrupted by {number.name}: the run is saved .* --resume"):
            tiny_run(tmp_path / "run", False, should_stop=should_stop)
    finally:
        signal.signal(number, before)
    assert len(polled) == step
    tiny_run(tmp_path / "run", True)
    assert_same_outcome(tmp_path / "run", control)


@pytest.mark.slow
@pytest.mark.parametrize(
    "growth",
    [
        {"policy": "uniform", "trial_epochs": 2},
        {
            "policy": "greedy",
            "kinds": ("Widen", "InsertLayer"),
            "interval_epochs": 1,
            "ban_epochs": 2,
            "min_gain": 0.02,
        },
    ],
    ids=lambda growth: growth["policy"],
)
def test_what_policies_and_long_trials_remember_survives_a_resume(growth: dict[str, Any], tmp_path: Path) -> None:
    settings = config({"epochs": 8}, growth)
    tiny_run(tmp_path / "control", False, settings)
    for stop in (16, 36):
        polled: list[int] = []
        with pytest.raises(Interrupted, match="stop"):
            tiny_run(
                tmp_path / str(stop),
                False,
                settings,
                should_stop=lambda polled=polled, stop=stop: "stop" if polled.append(1) or len(polled) == stop else "",
            )
        tiny_run(tmp_path / str(stop), True, settings)
        assert_same_outcome(tmp_path / str(stop), tmp_path / "control")


def interrupted(run_dir: Path, step: int) -> None:
    polled: list[int] = []

    def should_stop() -> str:
        polled.append(1)
        return "stop" if len(polled) == step else ""

    with pytest.raises(Interrupted, match="stop"):
        tiny_run(run_dir, False, should_stop=should_stop)


def test_a_damaged_newest_checkpoint_is_passed_over_aloud_and_ends_the_same(tmp_path: Path, control: Path) -> None:
    run_dir = tmp_path / "run"
    interrupted(run_dir, 36)
    newest = sorted((run_dir / "checkpoints").iterdir())[-1]
    path = newest / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    tiny_run(run_dir, True)
    rejected = journal(run_dir).of(CheckpointRejected)
    assert [event.path for event in rejected] == [newest.name]
    assert "optimizer.safetensors: found" in rejected[0].reason
    assert len(journal(run_dir).of(RunResumed)) == 1
    assert_same_outcome(run_dir, control)


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path: Path, control: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "journal.jsonl").write_bytes((control / "journal.jsonl").read_bytes().splitlines(keepends=True)[0])
    tiny_run(run_dir, True)
    assert_same_outcome(run_dir, control)


def test_when_every_checkpoint_is_damaged_the_run_is_not_begun_anew(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    interrupted(run_dir, 12)
    for path in (run_dir / "checkpoints").glob("*/model.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"found no checkpoint that verifies among \d"):
        tiny_run(run_dir, True)


def test_changed_data_refuse_to_resume(tmp_path: Path) -> None:
    interrupted(tmp_path / "run", 12)
    with pytest.raises(CheckpointError, match=r"the data have changed since the run began: found fingerprint"):
        Trainer(config({"epochs": 10}), tmp_path / "run").fit(network(), data(121), resume=True)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (config({"epochs": 11}), r"\(train.epochs\)"),
        (config({"epochs": 10, "momentum": 0.5}, {"min_gain": 0.5}), r"\(morphogenesis.min_gain, train.momentum\)"),
    ],
    ids=["one", "two"],
)
def test_changed_settings_refuse_to_resume_and_are_named(settings: GrowConfig, named: str, tmp_path: Path) -> None:
    interrupted(tmp_path / "run", 12)
    with pytest.raises(CheckpointError, match=rf"made with other settings {named}"):
        Trainer(settings, tmp_path / "run").fit(network(), data(), resume=True)


def test_a_setting_that_a_checkpoint_does_not_know_had_its_default(tmp_path: Path) -> None:
    saved = to_json(config({"epochs": 10}))
    del saved["evidence"], saved["morphogenesis"]["score"]
    state = {"data": "same", "config": saved}
    check_same_run(tmp_path, state, config({"epochs": 10}), "same")
    other = config({"epochs": 10}, {"score": "tiny"})
    with pytest.raises(CheckpointError, match=r"made with other settings \(morphogenesis.score\)"):
        check_same_run(tmp_path, state, other, "same")


def test_a_state_of_another_version_is_told_from_another_network(tmp_path: Path) -> None:
    interrupted(tmp_path / "run", 12)
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    payload = store.newest().payload
    del payload.state["engine"]["budget"]
    store.save(payload.state["progress"]["epoch"], payload)
    with pytest.raises(CheckpointError, match=r"found a state of another version .*'budget'.*start a new run"):
        tiny_run(tmp_path / "run", True)


def test_another_seed_network_refuses_to_resume(tmp_path: Path) -> None:
    interrupted(tmp_path / "run", 30)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, len(CLASSES)))
    with pytest.raises(CheckpointError, match=r"does not fit this run: .*Resume with its own seed model"):
        Trainer(config({"epochs": 10}), tmp_path / "run").fit(model, data(), resume=True)


def test_the_micro_batches_of_a_run_survive_its_kill(tmp_path: Path) -> None:
    interrupted(tmp_path / "run", 12)
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    newest = store.newest()
    newest.payload.state["step"] = {"num_micro_batches": 3, "num_bad_batches": 0}
    store.save(newest.payload.state["progress"]["epoch"], newest.payload)
    tiny_run(tmp_path / "run", True)
    assert final_state(tmp_path / "run")[1]["step"] == {"num_micro_batches": 3, "num_bad_batches": 0}


def digits_run(run_dir: Path, resume: bool) -> Any:
    settings = GrowConfig(
        device="cpu",
        data=DataConfig(limit=500),
        train=TrainConfig(epochs=8, batch_size=50),
        morphogenesis=MorphogenesisConfig(
            policy="greedy", triggers=("interval",), overhead_fraction=None, trial_epochs=0.7, evidence_samples=64
        ),
    )
    splits = load_data(settings.data, seed=settings.seed)
    model = build_model(
        settings.model, in_channels=1, image_size=splits.image_size, num_classes=splits.num_classes, seed=settings.seed
    )
    trainer = Trainer(settings, run_dir, [JournalWriter(run_dir / "journal.jsonl")])
    return trainer.fit(model, splits, resume=resume)


@pytest.mark.slow
def test_twenty_kills_on_digits_change_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    digits_run(tmp_path / "control", False)
    length = time.monotonic() - began
    assert any(event.accepted for event in journal(tmp_path / "control").of(VerdictReached))
    num_met, attempt = 0, 0
    while num_met < 20:
        run_dir = tmp_path / f"run-{attempt}"
        num_met += run_through_kills(digits_run, run_dir, num_kills=5, longest=0.6 * length, seed=attempt)
        assert_same_outcome(run_dir, tmp_path / "control")
        attempt += 1
    print(f"{num_met} kills in {attempt} runs, all identical")
