"""``neuroexapt inspect RUN --evidence``: where a trained network is short, as a table, a picture and a JSON file."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text

from neuroexapt.analysis import BottleneckReport, ModelEvidence, bottlenecks, measure_evidence
from neuroexapt.cli.architecture import Architecture, from_checkpoint
from neuroexapt.cli.evidence_table import edge_lines, layer_table, legend, totals_of, what_to_do
from neuroexapt.cli.picture import check_place, run_folder_of
from neuroexapt.data import load_data
from neuroexapt.errors import DataError, InputError
from neuroexapt.report import save_evidence
from neuroexapt.report.atomic import write_atomically
from neuroexapt.resources import pick_device, stream
from neuroexapt.train.batches import batches

PICTURE, RECORD = "evidence.png", "evidence.json"


def show_evidence(options: argparse.Namespace, console: Console) -> None:
    """Measures, prints the table, and writes the picture and the record.

    Raises:
        InputError: It is no run or checkpoint, its data are gone, or nothing can be written; nothing has been.
    """
    target = Path(options.target)
    if not target.exists():
        raise InputError(
            f"{target}: found no such folder, needed a run or a checkpoint: evidence is measured on the data that a "
            "network was trained on. Train it first: neuroexapt grow."
        )
    if options.input or options.classes:
        raise InputError(f"{target}: found --input or --classes, needed neither: a run knows its data. Drop them.")
    folder = run_folder_of(target)
    place = options.out or folder / PICTURE
    is_there = check_place(place)
    found = from_checkpoint(target)
    previous, note = _previous(folder / RECORD)
    evidence, notes = _measured(target, found, options.samples)
    report = bottlenecks(evidence, previous)
    record = json.dumps({"evidence": evidence.to_json(), "needs": report.to_json()}, indent=1)
    _written(place, lambda: save_evidence(evidence, report, target.resolve().name, place))
    _written(folder / RECORD, lambda: write_atomically(folder / RECORD, f"{record}\n".encode()))
    console.print(totals_of(evidence, str(target)), highlight=False)
    console.print(layer_table(evidence, report, console.width))
    for line in (
        legend(evidence, console.width),
        *edge_lines(report),
        *(f"note: {text}" for text in (*note, *notes, *evidence.notes, *report.notes)),
        "",
        "what stands out among the layers (where a change would go first, not whether one is needed):",
        *(f"  {line}" for line in report.summary().splitlines()),
        *what_to_do(report),
    ):
        indent = " " * (len(line) - len(line.lstrip()))
        wrapped = textwrap.fill(line, console.width, subsequent_indent=f"{indent}  ") if console.is_terminal else line
        console.print(Text(wrapped), highlight=False, soft_wrap=True)
    replaced = " (in place of the one that was there)" if is_there else ""
    for line in (f"picture: {place}{replaced}", f"record: {folder / RECORD}"):
        console.print(Text(line), soft_wrap=True)  # a path stays in one piece


def _measured(target: Path, found: Architecture, num_samples: int | None) -> tuple[ModelEvidence, list[str]]:
    assert found.config is not None  # a checkpoint has one
    data = load_data(found.config.data, seed=found.config.seed)
    has, needed = (data.in_channels, *data.image_size), found.input_shape
    if has != needed or data.num_classes != found.num_classes:
        raise DataError(
            f"{data.name}: found images of {list(has)} in {data.num_classes} classes, needed {list(needed)} in "
            f"{found.num_classes} as {target} was trained on. Restore the data."
        )
    notes = [] if data.fingerprint == found.fingerprint else ["the data have changed since this network was trained"]
    settings = replace(found.config.evidence, num_samples=num_samples or found.config.evidence.num_samples)
    device, seed = pick_device("auto"), found.config.seed
    images, labels = data.train.images, data.train.labels
    order = torch.randperm(len(labels), generator=stream(seed, "evidence"))  # the first are read
    shuffled = batches(images, labels, found.config.train.batch_size, data.normalise, device, order)
    return measure_evidence(found.model.to(device), shuffled, config=settings, seed=seed), notes


def _written(path: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}. Make its folder writable.") from error


def _previous(path: Path) -> tuple[BottleneckReport | None, list[str]]:
    """Reads what stood out the last time; a record that cannot be read is told, and begins anew."""
    if not path.is_file():
        return None, []
    try:
        return BottleneckReport.from_json(json.loads(path.read_text())["needs"]), []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return None, [f"{path}: is no earlier record ({type(error).__name__}), so nothing is remembered from it"]
