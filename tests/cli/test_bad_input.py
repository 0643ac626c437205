"""Bad input: one clear sentence on standard error, exit code 2, and nothing written."""

import fcntl
import os
import shutil
import subprocess
import sys

import pytest

from cli.images import png, write_parquet

MANY = 1 << 20

SETTINGS = [
    (["--data", "digts"], "Did you mean 'digits'?"),
    (["--data", "nowhere/images"], "no existing path. The folder 'nowhere' does not exist either"),
    (["--model", "rsnet"], "Did you mean 'resnet'?"),
    (["--model", "no_such_package:net"], "No module named 'no_such_package'. Run in the folder that holds it"),
    (["--set", "train.epoch=3"], "unknown key train.epoch: did you mean train.epochs?"),
    (["--set", "train.epochs=many"], "train.epochs: found 'many', needed a whole number."),
    (["--set", "train.optimizer=sdg"], "found 'sdg', needed 'adamw' or 'sgd': did you mean 'sgd'?"),
    (["--set", "data.limit={"], "--set: data.limit: found '{', which is no YAML value (line 1, column 2"),
    (["--set", "epochs"], "--set: found 'epochs', needed key=value, for example train.epochs=10."),
    (["--set", "train.epochs.most=3"], "train.epochs: found {'most': 3}, needed a whole number."),
    (["--set", "train.warmup_epochs=50"], "found warmup_epochs 50 with epochs"),
    (["--set", "morphogenesis.last_epoch=1"], "found last_epoch 1 before first_epoch 2"),
    (["--set", "morphogenesis.kinds=[Widn]"], "found 'Widn', needed one of"),
    (["--set", "morphogenesis.score=tini"], "morphogenesis.score: found 'tini', needed one of residual, "),
    (["--set", "evidence.estimators=[rnk]"], "Did you mean rank?"),
    (["--set", "morphogenesis.kinds=[]"], "morphogenesis.kinds: found [], needed a list of at least 1."),
    (["--set", "model.options.with=3"], "with"),
    (["--max-seconds", "-1"], "train.max_seconds: found -1.0, needed a number greater than 0."),
    (["--limit", "-5"], "data.limit: found -5, needed a number of at least 1."),
    (["--limit", "5"], "found data.limit = 5, needed at least 20"),
    (["--max-parameter-ratio", "0.5"], "found 0.5, needed a number of at least 1."),
    (["--max-flop-ratio", "0"], "found 0.0, needed a number of at least 1."),
    (["--epochs", "0"], "train.epochs: found 0, needed a number of at least 1."),
    (["--max-events", "-1"], "found -1, needed a number of at least 0."),
    (["--seed", "-1"], "seed: found -1, needed a number of at least 0."),
    (["--seed", str(2**80)], "needed a number of at most 9223372036854775807."),
    (["--epochs", "x"], "neuroexapt grow: --epochs: found 'x', needed a whole number."),
    (["--epochs", "1e3"], "--epochs: found '1e3', needed a whole number."),
    (["--learning-rate", "nan"], "--learning-rate: found 'nan', needed a finite number."),
    (["--max-seconds", "1e400"], "--max-seconds: found '1e400', needed a finite number."),
    (["--epoch", "3"], "unknown argument --epoch: did you mean --epochs?"),
    (["--policy", "gredy"], "needed one of uniform, greedy, scheduled, thompson. Did you mean 'greedy'?"),
    (["--set", "morphogenesis.triggers=[plato]"], "morphogenesis.triggers: found 'plato', needed one of interval, "),
    (["--set", "morphogenesis.experience=nowhere.json"], "morphogenesis.experience: nowhere.json: found no file of"),
    (["--device", "gpu"], "device: found 'gpu', needed auto, cpu, cuda"),
    (["--device", "cuda:4096"], "device: found cuda:4096"),
    (["--resume", "nowhere"], "--resume: found --out beside it, needed the run's own settings"),
]


def in_words(value):
    return " ".join(value) if isinstance(value, list) else value[:20]


@pytest.fixture
def refused(call, tmp_path, monkeypatch):
    """Returns a function that grows with bad arguments and returns the sentence."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())

    def run(*arguments):
        out = tmp_path / "out"
        answer = call("grow", *arguments, "--out", out)
        assert answer.code == 2, answer.err
        assert answer.out == ""
        assert not out.exists()
        assert not (tmp_path / "runs").exists()
        assert answer.err.startswith("neuroexapt")
        assert answer.err.count("\n") == 1
        assert "Traceback" not in answer.err
        return answer.err

    yield run
    assert [path for path in before if not path.exists()] == []


@pytest.mark.parametrize(("arguments", "sentence"), SETTINGS, ids=in_words)
def test_a_setting_that_does_not_fit_is_refused(refused, arguments, sentence):
    assert sentence in refused(*arguments)


def test_all_bad_values_are_told_at_once(refused):
    sentence = refused("--epochs", "0", "--limit", "0", "--set", "train.momentum=2")
    assert all(key in sentence for key in ("train.epochs", "data.limit", "train.momentum"))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.yaml", b"train: {epoch: 3}", "a.yaml: unknown key train.epoch: did you mean train.epochs?"),
        ("a.yaml", b"train: {epochs: 3, epochs: 4}", "line 1, column 20: found the key 'epochs' twice"),
        ("a.yaml", b"train: [", "found no valid YAML: line 1, column 9"),
        ("a.yaml", b"- 1\n- 2\n", "a.yaml: found a list, needed key: value pairs."),
        ("a.yaml", b"\xff\xfe\x00", "found bytes that are not UTF-8 (at byte 0)"),
        ("a.yaml", b"# " + b"x" * MANY, "needed at most 1,048,576"),
        ("a.yaml", b"[" * 100_000, "found no valid YAML"),
        ("a.yaml", b"a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a.toml", b"[train]\nepochs = ", "found no valid TOML"),
        ("a.json", b'{"seed": 1,}', "found no valid JSON"),
    ],
)
def test_a_config_file_that_cannot_be_used_is_refused(refused, tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    assert sentence in refused("--config", name)


@pytest.mark.parametrize(("name", "found"), [("nothing.yaml", "found no such file"), (".", "found a folder")])
def test_a_config_file_that_is_none_is_refused(refused, name, found):
    assert f"{found}, needed settings. Give a YAML, TOML or JSON file." in refused("--config", name)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("stubborn", "the left flange is loose"),
        ("unbuildable", "KeyError: 'no such recipe'"),
        ("text", "found str, needed an nn.Module"),
        ("eleven", "found outputs of shape [(16, 11)], needed [(16, 10)]"),
        ("goood", "Did you mean odd_models:good?"),
    ],
)
def test_a_model_that_does_not_work_is_refused_with_its_own_error(refused, models, name, sentence):
    assert sentence in refused("--model", f"odd_models:{name}")


def test_a_file_that_is_no_parquet_is_refused(refused, tmp_path):
    (tmp_path / "images.parquet").write_bytes(b"PAR1 this is not it")
    assert "images.parquet: found a file that cannot be read as Parquet" in refused("--data", "images.parquet")


def test_a_truncated_image_is_named_by_its_row(refused, tmp_path):
    images = [png(5 * i) for i in range(40)]
    images[17] = images[17][:40]
    write_parquet(tmp_path / "images.parquet", images, [i % 2 for i in range(40)])
    assert "images.parquet: row 17" in refused("--data", "images.parquet")


def test_labels_out_of_range_are_refused(refused, tmp_path):
    write_parquet(tmp_path / "images.parquet", [png(i) for i in range(40)], [-3] + [i % 2 for i in range(39)])
    sentence = refused("--data", "images.parquet")
    assert "label" in sentence
    assert "-3" in sentence


def test_a_folder_that_holds_another_run_is_left_alone(call, finished_run):
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    answer = call("grow", "--out", finished_run)
    assert answer.code == 2
    assert "found another run, needed a new or empty folder" in answer.err
    assert f"or go on with that run by --resume {finished_run}" in answer.err
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")} == before


def test_a_folder_that_holds_something_else_is_left_alone(call, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    answer = call("grow", "--out", tmp_path)
    assert answer.code == 2
    assert "found letter.txt, needed a new or empty folder" in answer.err
    assert os.listdir(tmp_path) == ["letter.txt"]


@pytest.mark.parametrize(
    ("out", "sentence"), [("file", "found a file"), ("file/run", "cannot be made: Not a directory")]
)
def test_a_place_that_cannot_be_written_is_refused(call, tmp_path, out, sentence):
    (tmp_path / "file").write_text("")
    answer = call("grow", "--out", tmp_path / out, "--limit", "300")
    assert answer.code == 2
    assert f"{tmp_path / out}: {sentence}" in answer.err
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_another_process_is_writing_is_refused_and_left_alone(call, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    handle = os.open(out, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        answer = call("grow", "--out", out, "--limit", "300")
    finally:
        os.close(handle)
    assert answer.code == 2
    assert "found another process that is writing this run" in answer.err
    assert os.listdir(out) == []


def test_resuming_what_is_no_run_is_refused(call, tmp_path):
    answer = call("grow", "--resume", tmp_path)
    assert answer.code == 2
    assert "found no config.json, needed the folder of a run" in answer.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("flags", [["--epochs", "9"], ["--set", "seed=3"], ["--config", "x.yaml"], ["--seed", "0"]])
def test_resuming_with_other_settings_is_refused(call, finished_run, flags):
    answer = call("grow", "--resume", finished_run, *flags)
    assert answer.code == 2
    assert f"--resume: found {flags[0]} beside it, needed the run's own settings; only --max-seconds may" in answer.err


def test_resuming_a_run_whose_checkpoints_are_all_damaged_lists_them_and_changes_nothing(call, finished_run, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(finished_run, run_dir)
    checkpoints = sorted((run_dir / "checkpoints").iterdir())
    for checkpoint in checkpoints:
        largest = max(checkpoint.iterdir(), key=lambda path: path.stat().st_size)
        largest.write_bytes(largest.read_bytes()[:-7])
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    answer = call("grow", "--resume", run_dir, "--max-seconds", "100")
    assert answer.code == 2
    assert f"found no checkpoint that verifies among {len(checkpoints)}" in answer.err
    assert all(checkpoint.name in answer.err for checkpoint in checkpoints)
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


def test_resuming_with_a_damaged_config_is_refused(call, tmp_path):
    (tmp_path / "config.json").write_text('{"seed": ')
    answer = call("grow", "--resume", tmp_path)
    assert answer.code == 2
    assert "config.json: found no valid JSON" in answer.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["inspect", "nothing"],
            "nothing: found no such folder, needed a run, a checkpoint, resnet, convnet, mlp or package",
        ),
        (["inspect", "."], "found neither checkpoints nor a MANIFEST.json"),
        (["inspect", "mlp", "--input", "3x0x3"], "--input: found '3x0x3', needed channels x height x width"),
        (["inspect", "mlp", "--input", "3x99999x99999"], "needed at most 16,777,216 values in one image"),
        (["inspect", "mlp", "--classes", "0"], "--classes: found '0', needed at least 1"),
        (["inspect", "odd_models:stubborn"], "the left flange is loose"),
        (["report", "."], "found no journal.jsonl, needed the folder of a run"),
        (["grwo"], "invalid choice: 'grwo'"),
        ([], "the following arguments are required: COMMAND"),
    ],
    ids=in_words,
)
def test_the_other_commands_refuse_what_they_cannot_use(call, models, arguments, sentence):
    before = sorted(path.name for path in models.iterdir())
    answer = call(*arguments)
    assert answer.code == 2
    assert sentence in answer.err
    assert answer.err.count("\n") == 1
    assert sorted(path.name for path in models.iterdir() if path.name != "__pycache__") == before


def test_inspect_refuses_a_shape_beside_a_checkpoint(call, finished_run):
    answer = call("inspect", finished_run, "--input", "3x8x8")
    assert answer.code == 2
    assert "a checkpoint knows its data" in answer.err


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--data", "digts"], ["--epochs", "0"], ["--model", "odd_models:stubborn"]])
def test_a_process_ends_with_the_same_sentence_and_code(models, arguments):
    command = [sys.executable, "-m", "neuroexapt.cli.main", "grow", "--out", "out", *arguments]
    done = subprocess.run(command, cwd=models, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("neuroexapt: ")
    assert done.stderr.count("\n") == 1
    assert not (models / "out").exists()
