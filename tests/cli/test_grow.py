"""``neuroexapt grow`` from end to end: what is written, stopped, resumed, and where settings come from."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from cli.conftest import TINY
from cli.images import png, write_parquet
from neuroexapt.cli.flags import FLAGS
from neuroexapt.cli.main import build_parser, main
from neuroexapt.cli.run_folder import write_experience
from neuroexapt.config import GrowConfig, to_json
from neuroexapt.errors import CheckpointError
from neuroexapt.events import EpochFinished, RunFinished, RunResumed, RunStarted, VerdictReached
from neuroexapt.report import read_journal
from neuroexapt.train import CheckpointStore


def told(run_dir, kind):
    return [event for event in read_journal(run_dir / "journal.jsonl") if isinstance(event, kind)]


def settings_of(run_dir):
    return json.loads((run_dir / "config.json").read_text())


def test_a_run_leaves_all_that_a_reader_needs(finished_run):
    assert {path.name for path in finished_run.iterdir()} == {
        "config.json",
        "journal.jsonl",
        "checkpoints",
        "experience.json",
        "report.html",
        "plots",
    }
    (finished,) = told(finished_run, RunFinished)
    assert finished.reason == "completed"
    assert len(told(finished_run, VerdictReached)) >= 1
    assert settings_of(finished_run)["train"]["epochs"] == 4
    assert CheckpointStore(finished_run / "checkpoints").newest().payload.state["progress"]["epoch"] == 4


def test_a_run_may_begin_with_what_an_earlier_one_has_learnt(call, finished_run, tmp_path):
    earlier = finished_run / "experience.json"
    learnt = json.loads(earlier.read_text())
    assert sum(belief["count"] for belief in learnt.values()) >= 1
    answer = call(
        "grow", "--out", tmp_path / "run", *TINY, "--epochs", "1", "--set", f"morphogenesis.experience={earlier}"
    )
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "run" / "experience.json").read_text()) == learnt


def test_an_experience_that_cannot_be_written_does_not_spoil_the_run(tmp_path, capsys):
    write_experience(tmp_path / "taken away", {})
    assert "experience.json could not be written: No such file or directory. The run's" in capsys.readouterr().err


def test_the_config_is_there_before_the_first_line_of_the_journal(finished_run):
    (started,) = told(finished_run, RunStarted)
    assert started.config == settings_of(finished_run)
    assert (finished_run / "config.json").stat().st_mtime_ns <= (finished_run / "checkpoints").stat().st_mtime_ns


def test_an_empty_folder_is_as_good_as_none(call, tmp_path):
    answer = call("grow", "--out", tmp_path, *TINY, "--epochs", "1")
    assert answer.code == 0, answer.err
    assert f"report: {tmp_path}/report.html" in answer.out


def test_resuming_a_finished_run_tells_its_end_again(call, finished_run, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(finished_run, run_dir)
    (before,) = told(run_dir, RunFinished)
    answer = call("grow", "--resume", run_dir)
    assert answer.code == 0, answer.err
    (after,) = told(run_dir, RunFinished)
    assert (after.test_loss, after.num_parameters) == (before.test_loss, before.num_parameters)


def test_a_run_out_of_time_ends_with_3_and_goes_on_when_it_gets_more(call, tmp_path):
    run_dir = tmp_path / "run"
    answer = call("grow", "--out", run_dir, *TINY, "--max-seconds", "1e-6")
    assert answer.code == 3
    assert "stopped by max_seconds" in answer.out
    assert f"go on: neuroexapt grow --resume {run_dir}" in answer.out
    assert (run_dir / "report.html").is_file()
    assert max(epoch.epoch for epoch in told(run_dir, EpochFinished)) < 4
    answer = call("grow", "--resume", run_dir, "--max-seconds", "1000")
    assert answer.code == 0, answer.err
    assert settings_of(run_dir)["train"]["max_seconds"] == 1000
    assert len(told(run_dir, RunResumed)) == 1
    assert told(run_dir, RunFinished)[-1].reason == "completed"


def test_a_fault_once_the_run_has_begun_ends_with_3_and_the_run_saved(call, tmp_path, monkeypatch):
    save, run_dir = CheckpointStore.save, tmp_path / "run"

    def full_at_two(store, step, payload):
        if step == 2:
            raise CheckpointError("the disk is full.")
        return save(store, step, payload)

    monkeypatch.setattr(CheckpointStore, "save", full_at_two)
    answer = call("grow", "--out", run_dir, *TINY, "--max-events", "0")
    assert answer.code == 3
    assert "the disk is full. The run is saved up to its last checkpoint." in answer.err
    monkeypatch.undo()
    assert call("grow", "--resume", run_dir).code == 0


def test_a_report_that_cannot_be_written_does_not_spoil_the_run(call, tmp_path, monkeypatch):
    def full(run_dir):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neuroexapt.cli.grow.write_report", full)
    answer = call("grow", "--out", tmp_path / "run", *TINY, "--epochs", "1")
    assert answer.code == 0
    assert "the report could not be written" in answer.err
    assert f"neuroexapt report {tmp_path / 'run'}" in answer.err


def test_a_model_of_ones_own_comes_from_the_current_directory(call, models):
    answer = call("grow", "--out", "run", *TINY, "--model", "odd_models:good", "--set", "model.options.width=4")
    assert answer.code == 0, answer.err
    assert told(models / "run", RunStarted)[0].model == "odd_models:good"


def test_a_folder_of_images_is_data(call, tmp_path):
    for name, shade in (("dark", 20), ("light", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(30):
            Image.new("RGB", (8, 8), (shade + index, shade, index)).save(tmp_path / "images" / name / f"{index}.png")
    answer = call("grow", "--out", tmp_path / "run", "--data", tmp_path / "images", "--model", "mlp", "--epochs", "2")
    assert answer.code == 0, answer.err
    assert told(tmp_path / "run", RunStarted)[0].data == "images"


def test_a_parquet_file_is_data(call, tmp_path):
    write_parquet(tmp_path / "shades.parquet", [png(4 * i) for i in range(60)], [i // 30 for i in range(60)])
    arguments = ["--data", tmp_path / "shades.parquet", "--model", "mlp", "--epochs", "2"]
    answer = call("grow", "--out", tmp_path / "run", *arguments)
    assert answer.code == 0, answer.err
    assert "shades" in answer.out


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "seed: 1\ntrain:\n  epochs: 7\n  batch_size: 16\n  learning_rate: 3e-3\n"),
        ("a.toml", "seed = 1\n[train]\nepochs = 7\nbatch_size = 16\nlearning_rate = 3e-3\n"),
        ("a.json", '{"seed": 1, "train": {"epochs": 7, "batch_size": 16, "learning_rate": 3e-3}}'),
    ],
)
def test_later_wins_defaults_then_file_then_set_then_flags(call, tmp_path, monkeypatch, name, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text)
    arguments = ["--config", name, "--set", "train.epochs=6", "--set", "train.batch_size=24", "--epochs", "1"]
    answer = call("grow", *arguments, "--limit", "100", "--model", "mlp", "--out", "run")
    assert answer.code == 0, answer.err
    found = settings_of(tmp_path / "run")
    train = found["train"]
    assert (found["seed"], train["epochs"], train["batch_size"], train["learning_rate"]) == (1, 1, 24, 3e-3)
    assert train["momentum"] == GrowConfig().train.momentum


def test_without_out_the_folder_is_named_after_data_model_and_seed(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("grow", *TINY, "--epochs", "1", "--seed", "7").code == 0
    assert os.listdir("runs") == ["digits-mlp-seed7"]
    answer = call("grow", *TINY, "--epochs", "1", "--seed", "7")
    assert answer.code == 2
    assert "runs/digits-mlp-seed7: found another run" in answer.err


def help_of(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    return " ".join(capsys.readouterr().out.split())


def test_each_flag_of_grow_states_the_default_of_its_setting(capsys):
    text = help_of("grow", capsys)
    defaults = to_json(GrowConfig())
    for flag in FLAGS:
        node = defaults
        for part in flag.key.split("."):
            node = node[part]
        assert (
            f"(default: {flag.unset if node is None else node if not isinstance(node, float) else f'{node:g}'})"
            in (text.split(f" {flag.name} ", 2)[-1].split(" --", 1)[0])
        )


@pytest.mark.parametrize("command", ["grow", "inspect"])
def test_every_option_states_a_default(command, capsys):
    text = help_of(command, capsys).split("options:", 1)[1]
    options = re.split(r" (?=--[a-z])", text)[1:]
    options = [option for option in options if re.match(r"--[a-z-]+ [A-Z]", option)]
    assert len(options) >= 2
    assert [option for option in options if "(default: " not in option] == []


def test_help_of_the_whole_says_what_the_exit_codes_mean():
    text = " ".join(build_parser().format_help().split())
    assert "0 done; 2 bad input, nothing written; 3 stopped by a budget or a fault, the run saved; 130" in text


def start(tmp_path, *arguments):
    command = [sys.executable, "-m", "neuroexapt.cli.main", "grow", *arguments]
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_epochs(run_dir, count):
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        journal = run_dir / "journal.jsonl"
        if journal.exists() and journal.read_text().count('"EpochFinished"') >= count:
            return
        time.sleep(0.05)
    pytest.fail("the run did not get under way")


@pytest.mark.slow
def test_an_interrupted_process_ends_with_130_and_its_run_goes_on(call, tmp_path):
    run_dir = tmp_path / "run"
    arguments = ["--out", "run", "--model", "mlp", "--epochs", "2000", "--max-events", "0"]
    process = start(tmp_path, *arguments)
    wait_for_epochs(run_dir, 2)
    second = start(tmp_path, *arguments)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "found another run" in said or "found another process" in said
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted by SIGINT: the run is saved up to its last checkpoint" in err
    assert "go on: neuroexapt grow --resume run" in out
    assert (run_dir / "report.html").is_file()
    saved = CheckpointStore(run_dir / "checkpoints").newest().payload.state["progress"]["epoch"]
    answer = call("grow", "--resume", run_dir, "--max-seconds", "1e-6")
    assert answer.code == 3, answer.err
    assert told(run_dir, RunResumed)[-1].epoch == saved
    assert max(epoch.epoch for epoch in told(run_dir, EpochFinished)) == saved + 1


@pytest.mark.slow
def test_of_two_processes_that_start_at_once_one_gets_the_folder(tmp_path):
    arguments = ["--out", "run", *TINY]
    both = [start(tmp_path, *arguments) for _ in range(2)]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    loser = next(err for err, process in zip(said, both, strict=True) if process.returncode == 2)
    assert "found another" in loser
    assert len(told(tmp_path / "run", RunStarted)) == 1
