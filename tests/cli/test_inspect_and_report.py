"""``neuroexapt inspect`` and ``report``: what they show of a run, a checkpoint and a model."""

import io
import os
import re
import shutil
import subprocess
import sys

import pytest
from rich.console import Console
from torch import nn, randn

from neuroexapt.cli.anatomy import group_table, layer_table, totals
from neuroexapt.graph import trace


def test_a_run_is_shown_by_its_newest_checkpoint(call, finished_run):
    answer = call("inspect", finished_run)
    assert answer.code == 0, answer.err
    newest = max((finished_run / "checkpoints").iterdir())
    assert call("inspect", newest).out == answer.out
    assert re.search(r"MLP: [\d,]+ parameters; per sample [\d.]+ kFLOP and [\d.]+ (?:Ki)?B of activations", answer.out)
    assert "self-test: permuting" in answer.out
    for part in (
        "Layers",
        "Channel groups",
        "Widen",
        "InsertLayer",
        "widened, pruned",
        "an axis of the model's output",
    ):
        assert part in answer.out


def test_a_function_is_shown_for_the_shape_and_classes_asked_for(call, models):
    answer = call("inspect", "odd_models:good", "--input", "1x8x8", "--classes", "3")
    assert answer.code == 0, answer.err
    assert "6x6x6" in answer.out
    assert "Conv2d" in answer.out


def test_a_built_in_network_is_shown(call):
    answer = call("inspect", "resnet", "--input", "1x8x8")
    assert answer.code == 0, answer.err
    assert "SmallResNet" in answer.out
    assert "<-blocks.0.conv2" in answer.out
    assert "->blocks.0.conv1" in answer.out


class Chunky(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.very_long_name_of_a_block_inside_of_a_stage = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.SiLU())
        self.head = nn.Linear(8 * 8 * 8, 5)

    def forward(self, x):
        gate, value = self.stem(x).chunk(2, dim=1)
        y = self.very_long_name_of_a_block_inside_of_a_stage(gate.sigmoid() * value)
        return self.head(y.flatten(1))


@pytest.mark.parametrize("width", [80, 120, 160])
def test_tables_fit_the_width_and_lose_nothing(width):
    graph = trace(Chunky(), randn(2, 3, 8, 8))
    console = Console(width=width, record=True, file=io.StringIO())
    for part in (totals(graph), layer_table(graph), group_table(graph)):
        console.print(part)
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    if width == 160:
        assert all(group.name in text and group.reason in text for group in graph.groups)


def test_what_cannot_be_changed_is_grey():
    graph = trace(Chunky(), randn(2, 3, 8, 8))
    table = group_table(graph)
    pinned = [str(row.style or "") for row, group in zip(table.rows, graph.groups, strict=True) if group.pin_reason]
    free = [str(row.style or "") for row, group in zip(table.rows, graph.groups, strict=True) if group.can_widen]
    assert set(pinned) == {"bright_black"}
    assert set(free) == {""}


def test_report_draws_a_run_again_that_was_killed_while_writing_a_line(call, finished_run, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(finished_run, run_dir)
    (run_dir / "report.html").unlink()
    journal = run_dir / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-4]) + lines[-4][:50])
    answer = call("report", run_dir)
    assert answer.code == 0, answer.err
    assert answer.out == f"report: {run_dir / 'report.html'}\n"
    assert "nothing has been tested" in (run_dir / "report.html").read_text()


def test_report_says_where_a_journal_is_damaged(call, tmp_path):
    (tmp_path / "journal.jsonl").write_text("{}\n%%%\n{}\n")
    answer = call("report", tmp_path)
    assert answer.code == 2
    assert "journal.jsonl, line" in answer.err


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error(finished_run):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "neuroexapt.cli.main", "inspect", str(finished_run)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    assert done.stderr == ""
