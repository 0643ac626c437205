"""``neuroexapt inspect --diff A B``: what changed between two architectures, as a table and as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.text import Text

from neuroexapt.cli.anatomy_diff import difference_table, totals_of
from neuroexapt.cli.architecture import Architecture, architecture, from_function
from neuroexapt.cli.picture import check_place, run_folder_of
from neuroexapt.errors import InputError
from neuroexapt.graph import difference
from neuroexapt.report import save_difference
from neuroexapt.report.quantities import in_number_of
from neuroexapt.surgery import Lineage, Surgeon
from neuroexapt.surgery.checking.structure import structure_of

PICTURE = "diff.png"
WIDE = 120  # columns from which two values stand in one line


def show_difference(options: argparse.Namespace, console: Console) -> None:
    """Prints the table and writes the picture.

    Raises:
        InputError: One of the two cannot be read, or the picture cannot be written; nothing has been.
    """
    names: list[str] = options.diff
    place = options.out or run_folder_of(Path(names[1])) / PICTURE
    is_there = check_place(place)
    first, second = _both(names, options)
    found = difference(first.graph(), second.graph())
    labels = _labels(names)
    try:
        save_difference(found, *labels, place)
    except OSError as error:
        raise InputError(f"{place}: cannot be written: {error.strerror}. Give another --out.") from error
    console.print(totals_of(found, *names), highlight=False)
    for text in edits_between(first, second):
        console.print(Text(text), highlight=False)
    console.print(difference_table(found, is_wide=console.width >= WIDE))
    console.print(Text(f"picture: {place}" + (" (in place of the one that was there)" if is_there else "")))


def _both(names: list[str], options: argparse.Namespace) -> tuple[Architecture, Architecture]:
    """Reads both; a function beside a checkpoint is called for the checkpoint's data."""
    is_saved = [Path(name).exists() for name in names]
    if is_saved[0] == is_saved[1]:
        return architecture(names[0], options), architecture(names[1], options)
    saved = architecture(names[is_saved.index(True)], options)
    built = from_function(names[is_saved.index(False)], saved.input_shape, saved.num_classes)
    return (saved, built) if is_saved[0] else (built, saved)


def edits_between(first: Architecture, second: Architecture) -> list[str]:
    """Says in words which edits lie between the two, where one began as the other."""
    origins = [(one.source, one.input_shape, one.num_classes) for one in (first, second)]
    old, new = first.lineage.steps, second.lineage.steps
    if origins[0] != origins[1] or old == new:
        return []
    if old[: len(new)] == new:
        return [
            f"A has {in_number_of(len(old) - len(new), 'edit')} more than B: compare B with A to see them in words."
        ]
    if new[: len(old)] != old:
        return []
    surgeon = Surgeon(structure_of(first.model), first.inputs)
    steps = Lineage(new[len(old) :]).steps
    return ["edits:", *(f"  {n}. {surgeon.apply(step.mutation).description}" for n, step in enumerate(steps, start=1))]


def _labels(names: list[str]) -> tuple[str, str]:
    first, second = (Path(name).name if Path(name).exists() else name for name in names)
    return (first, second) if first != second else (f"A: {first}", f"B: {second}")
