"""``neuroexapt inspect RUN --evidence``: the table, the picture, the record that is remembered, and what it refuses."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace

import pytest
from rich.console import Console

from analysis.made_up_evidence import chain, edge, reading
from neuroexapt.analysis import BottleneckReport, ModelEvidence, bottlenecks
from neuroexapt.cli import evidence as command
from neuroexapt.cli.evidence_table import MARK, edge_lines, layer_table, totals_of, what_to_do
from neuroexapt.data import load_data

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def run_dir(finished_run, tmp_path):
    """A copy of the finished run that may be written to."""
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


def record_of(run_dir):
    record = json.loads((run_dir / "evidence.json").read_text())
    return ModelEvidence.from_json(record["evidence"]), BottleneckReport.from_json(record["needs"])


def test_a_run_gets_a_table_a_picture_and_a_record_from_which_the_next_call_remembers(call, run_dir):
    answer = call("inspect", run_dir, "--evidence", "--samples", "64")
    assert answer.code == 0, answer.err
    for part in (
        "layers read from 64 training samples",
        "wider",
        "what stands out among the layers",
        "units",
        f"{MARK} stands out",
    ):
        assert part in answer.out
    assert f"picture: {run_dir / 'evidence.png'}\n" in answer.out
    assert f"record: {run_dir / 'evidence.json'}\n" in answer.out
    assert (run_dir / "evidence.png").read_bytes().startswith(PNG)
    evidence, report = record_of(run_dir)
    assert report == bottlenecks(evidence)
    assert all(layer.path in answer.out for layer in evidence.layers)

    layers = tuple(
        replace(layer, needs={name: replace(need, is_raised=True) for name, need in layer.needs.items()})
        for layer in report.layers
    )
    everything = replace(report, layers=layers)
    text = json.dumps({"evidence": evidence.to_json(), "needs": everything.to_json()})
    (run_dir / "evidence.json").write_text(text)
    newest = max((run_dir / "checkpoints").iterdir())
    again = call("inspect", newest, "--evidence", "--samples", "64", "--out", run_dir / "other.png")
    assert again.code == 0, again.err
    assert record_of(run_dir) == (evidence, bottlenecks(evidence, everything))
    assert (run_dir / "other.png").is_file()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"needs": 3}', "TypeError"),
        ('{"needs": {"layers": [{"path": "a", "width": 1, "needs": []}]}}', "AttributeError"),
        ("[" * 10**5, "RecursionError"),
    ],
)
def test_a_damaged_record_is_told_and_the_memory_begins_anew(call, run_dir, text, error):
    (run_dir / "evidence.json").write_text(text)
    answer = call("inspect", run_dir, "--evidence", "--samples", "16")
    assert answer.code == 0, answer.err
    assert f"is no earlier record ({error}), so nothing is remembered from it" in " ".join(answer.out.split())
    evidence, report = record_of(run_dir)
    assert report == bottlenecks(evidence)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("mlp", "--evidence"), "mlp: found no such folder, needed a run or a checkpoint"),
        (("--evidence", "--diff", "mlp", "mlp"), "--evidence: needed a RUN or CHECKPOINT, not --diff"),
        (("mlp", "--samples", "64"), "--samples: needed at least 16, with --evidence"),
        (("run", "--evidence", "--samples", "3"), "--samples: needed at least 16, with --evidence"),
        (("run", "--evidence", "--classes", "3"), "found --input or --classes, needed neither"),
        (("run", "--evidence", "--out", "x.jpg"), "found the ending '.jpg', needed .png"),
        (("empty", "--evidence"), "found neither checkpoints nor a MANIFEST.json"),
    ],
)
def test_bad_wishes_for_evidence_are_one_sentence_and_nothing_is_written(
    call, arguments, said, run_dir, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    answer = call("inspect", *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert answer.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_other_data_than_the_run_had_are_refused_or_told(call, run_dir, monkeypatch):
    data = load_data(command.from_checkpoint(run_dir).config.data, seed=0)
    monkeypatch.setattr(command, "load_data", lambda *_, **__: replace(data, fingerprint="other"))
    answer = call("inspect", run_dir, "--evidence", "--samples", "16")
    assert answer.code == 0, answer.err
    assert "note: the data have changed since this network was trained" in answer.out
    more = replace(data, class_names=(*data.class_names, "eleven"))
    monkeypatch.setattr(command, "load_data", lambda *_, **__: more)
    answer = call("inspect", run_dir, "--evidence")
    assert answer.code == 2
    assert "found images of [1, 8, 8] in 11 classes, needed [1, 8, 8] in 10" in answer.err


def test_a_folder_that_cannot_be_written_is_one_sentence(call, run_dir, monkeypatch):
    def refuse(path, content):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(command, "write_atomically", refuse)
    answer = call("inspect", run_dir, "--evidence", "--samples", "16")
    assert answer.code == 2
    assert answer.err.strip().endswith("evidence.json: cannot be written: Permission denied. Make its folder writable.")
    assert answer.out == ""


@pytest.mark.parametrize(
    ("width", "parts"),
    [
        (80, ["53±2%", f" 1.0{MARK}", " .50 ", " attn "]),
        (160, ["1.23±0.05", "2.0e-05±1e-06", f" 1.00{MARK}████", " 0.50 ██ ", " attention "]),
    ],
)
def test_the_table_of_needs_fits_the_width_and_marks_what_is_raised_without_colour(width, parts):
    values = [
        {
            "effective_rank_fraction": reading(0.3 * i, 0.05),
            "expressivity_gap": reading(0.2 + 0.2 * i, 0.01),
            "label_information": reading(1.23, 0.05),
            "label_information_fraction": reading(0.53, 0.02),
            "context_fraction": reading(0.125, 0.05),
            "fisher_sensitivity": reading((1 + i) * 1e-5, 1e-6),
        }
        for i in range(4)
    ]
    evidence = chain(*values, width=2048, skips=[(0, 2)])
    layers = tuple(replace(la, path=f"stages.{i}.a_long_name_of_a_block") for i, la in enumerate(evidence.layers))
    losses = [reading(0.1 * i, 0.15) for i in range(9)]
    evidence = replace(evidence, layers=layers, edges=tuple(edge(i, i + 1, loss) for i, loss in enumerate(losses)))
    report = bottlenecks(evidence)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(totals_of(evidence, "run"))
    console.print(layer_table(evidence, report, console.width))
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= width
    for part in ("4 layers read from 64 training samples", "2048", "60±5%", *parts):
        assert part in text
    told = edge_lines(report)
    assert told[1] == "      0.8 [0.65, 0.95]  layer.8 → layer.9"
    assert told[-2:] == ["      0.3 [0.15, 0.45]  layer.3 → layer.4", "  and 1 edge more"]
    assert edge_lines(replace(report, edges=(edge(0, 1, reading(0.1, 0.2)),)))[0].startswith(
        "no edge loses information"
    )
    assert edge_lines(replace(report, edges=())) == []
    assert what_to_do(report) == [
        "what could be done about it:",
        "  wider: Widen, ExpandBottleneck, SplitUnits",
        "  deeper: InsertLayer",
        "  less: PruneUnits, RemoveLayer, AddRegularization",
    ]
