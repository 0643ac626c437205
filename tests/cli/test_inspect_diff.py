"""``neuroexapt inspect --diff``: the table, the picture, the edits in words, and what it refuses."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

from neuroexapt.cli.anatomy_diff import difference_table, totals_of
from neuroexapt.cli.architecture import from_function
from neuroexapt.cli.diff import edits_between
from neuroexapt.graph import difference, trace
from neuroexapt.surgery import InsertLayer, Surgeon, Widen

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_run_beside_its_seed_network_is_compared_with_it(call, finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = tmp_path / "what changed.png"
    answer = call("inspect", "--diff", "mlp", finished_run, "--out", picture)
    assert answer.code == 0, answer.err
    assert picture.read_bytes().startswith(PNG)
    assert f"picture: {picture}\n" in answer.out
    for part in ("parameters: ", "FLOPs per sample: ", "layers: ", "what changed", "Linear"):
        assert part in answer.out
    again = call("inspect", "--diff", finished_run, "mlp", "--out", picture)
    assert again.code == 0, again.err
    assert "(in place of the one that was there)" in again.out


def grown(steps):
    """The built-in MLP after so many edits."""
    seed = from_function("mlp", (1, 8, 8), 10)
    surgeon = Surgeon(seed.model, seed.inputs)
    for mutation in (Widen(axis="layers.1", to=32), InsertLayer(site="layers.2", kernel_size=1))[:steps]:
        surgeon.apply(mutation)
    return replace(seed, lineage=surgeon.lineage)


def test_edits_are_told_in_words_where_one_lineage_goes_on_from_the_other():
    lines = edits_between(grown(1), grown(2))
    assert lines[0] == "edits:"
    assert len(lines) == 2
    assert lines[1].startswith("  1. ")
    assert "layers.2" in lines[1]
    assert "from 16 to 32" in edits_between(grown(0), grown(2))[1]
    assert edits_between(grown(2), grown(1)) == ["A has 1 edit more than B: compare B with A to see them in words."]
    assert edits_between(grown(1), grown(1)) == []
    other = replace(grown(1), num_classes=5)
    assert edits_between(other, grown(2)) == []


def test_without_out_the_picture_goes_beside_the_run_or_into_the_current_folder(
    call, finished_run, tmp_path, monkeypatch
):
    run_dir = tmp_path / "run"
    shutil.copytree(finished_run, run_dir)
    monkeypatch.chdir(tmp_path)
    newest = max((run_dir / "checkpoints").iterdir())
    answer = call("inspect", "--diff", run_dir, newest)
    assert answer.code == 0, answer.err
    assert (run_dir / "diff.png").is_file()
    assert "edits:" not in answer.out
    assert "what changed" in answer.out
    answer = call("inspect", "--diff", "mlp", "resnet", "--input", "1x8x8")
    assert answer.code == 0, answer.err
    assert (tmp_path / "diff.png").is_file()
    assert "new" in answer.out
    assert "removed" in answer.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["diff.png", "run"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--diff", "mlp", "nothing"), "nothing: found no such folder"),
        (("--diff", "mlp"), "expected 2 arguments"),
        (("mlp", "--diff", "mlp", "resnet"), "needed one RUN, CHECKPOINT or MODEL, or --diff A B"),
        ((), "needed one RUN, CHECKPOINT or MODEL, or --diff A B"),
        (("mlp", "--out", "x.png"), "--out: needed --diff A B"),
        (("--diff", "mlp", "resnet", "--out", "x.jpg"), "found the ending '.jpg', needed .png"),
        (("--diff", "mlp", "resnet", "--out", "no/x.png"), "found no folder no"),
        (("--diff", "mlp", "resnet", "--out", "text.png"), "found a file that is no PNG picture"),
        (("--diff", "mlp", "resnet", "--out", "folder.png"), "found a folder"),
        (("--diff", "mlp", "empty"), "found neither checkpoints nor a MANIFEST.json"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(call, arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("mine")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    answer = call("inspect", *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert answer.out == ""
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "text.png").read_text() == "mine"


@pytest.mark.parametrize("width", [80, 120, 160])
def test_the_table_fits_the_width_and_loses_nothing(width):
    name = "a_very_long_name_of_a_block_inside_of_a_stage"
    before, after = (nn.Sequential() for _ in range(2))
    before.add_module(name, nn.Conv2d(3, 128, 3, padding=1))
    after.add_module(name, nn.Conv2d(3, 256, 5, padding=2, bias=False))
    after.add_module("act", nn.ReLU())
    x = torch.randn(2, 3, 32, 32)
    found = difference(trace(before, x), trace(after, x))
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(totals_of(found, "a", "b"))
    console.print(difference_table(found, is_wide=width >= 120))
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= width
    for part in ("3,584", "19,200", "kernel 3x3", "bias gone", "new", "256x32x32", "1 wider, 1 new"):
        assert part in text
