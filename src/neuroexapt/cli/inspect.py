"""``neuroexapt inspect``: what a model is, what can be done to it, where it is short, and how two models differ."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from rich.console import Console

from neuroexapt.cli.anatomy import group_table, layer_table, totals
from neuroexapt.cli.architecture import DEFAULT_CLASSES, architecture
from neuroexapt.cli.arguments import whole_number
from neuroexapt.cli.diff import show_difference
from neuroexapt.cli.evidence import show_evidence
from neuroexapt.config import EvidenceConfig

WIDTH_OF_FILES = 160  # columns, where the output is no terminal
MAX_PIXELS = 1 << 24  # of one input, channels included


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "inspect",
        help="show layers, channel groups and possible edits, where a network is short, or what changed",
        description="Show what a model is made of, which parameter slices must change together (channel groups), "
        "what can be done to each, and why not. Or, with --evidence, where a trained network is short of capacity. "
        "Or, with --diff, what changed between two architectures.",
    )
    parser.add_argument(
        "target",
        nargs="?",
        metavar="RUN|CHECKPOINT|MODEL",
        help='a run folder (its newest checkpoint), a checkpoint folder, "resnet", "mlp", or package.module:function',
    )
    parser.add_argument(
        "--diff",
        nargs=2,
        metavar=("A", "B"),
        help="compare two of them, layer by layer, as a table and a picture; a model beside a checkpoint is built "
        "for the checkpoint's data (default: no comparison)",
    )
    _add_evidence(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.png",
        help="where the picture of the comparison or of the evidence goes (default: diff.png in the folder of run B, "
        "evidence.png in the folder of RUN, or in the current one)",
    )
    parser.add_argument(
        "--input",
        type=_image_shape,
        metavar="CxHxW",
        help="channels, height and width in pixels of an image; for a model only (default: 3x32x32)",
    )
    parser.add_argument(
        "--classes", type=_count, metavar="N", help=f"classes; for a model only (default: {DEFAULT_CLASSES})"
    )
    parser.set_defaults(run=run)


def _add_evidence(parser: Any) -> None:
    parser.add_argument(
        "--evidence",
        action="store_true",
        help="measure every layer of a RUN or CHECKPOINT on the training data of its run, and say which need more "
        "units (wider), depth (deeper), another path, attention, or less; gives a table, a picture, and evidence.json, "
        "from which the next call knows what stood out (default: no measuring)",
    )
    parser.add_argument(
        "--samples",
        type=_count,
        metavar="N",
        help="training samples to read as evidence, at least 16 (default: evidence.num_samples of the run, "
        f"{EvidenceConfig().num_samples} if it does not say)",
    )


def run(options: argparse.Namespace) -> int:
    """Prints totals, layers and groups, or the difference."""
    if (options.target is None) == (options.diff is None):
        options.parser.error("needed one RUN, CHECKPOINT or MODEL, or --diff A B")
    if options.out is not None and options.diff is None and not options.evidence:
        options.parser.error("argument --out: needed --diff A B or --evidence, whose picture it is")
    if options.evidence and options.diff is not None:
        options.parser.error("argument --evidence: needed a RUN or CHECKPOINT, not --diff")
    if options.samples is not None and (options.samples < 16 or not options.evidence):
        options.parser.error("argument --samples: needed at least 16, with --evidence")
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=WIDTH_OF_FILES)
    if options.diff is not None:
        show_difference(options, console)
        return 0
    if options.evidence:
        show_evidence(options, console)
        return 0
    graph = architecture(options.target, options).graph()
    console.print(totals(graph), highlight=False)
    console.print(layer_table(graph))
    console.print(group_table(graph))
    return 0


def _image_shape(text: str) -> tuple[int, int, int]:
    if not re.fullmatch(r"[1-9][0-9]{0,5}x[1-9][0-9]{0,5}x[1-9][0-9]{0,5}", text):
        raise argparse.ArgumentTypeError(f"found {text!r}, needed channels x height x width, such as 3x32x32")
    channels, height, width = map(int, text.split("x"))
    if channels * height * width > MAX_PIXELS:
        raise argparse.ArgumentTypeError(f"found {text!r}, needed at most {MAX_PIXELS:,} values in one image")
    return channels, height, width


def _count(text: str) -> int:
    if (value := whole_number(text)) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, needed at least 1")
    return value
