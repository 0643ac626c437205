"""``neuroexapt inspect``: what a model is, and what can be done to each part of it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from neuroexapt.cli.anatomy import group_table, layer_table, totals
from neuroexapt.cli.arguments import whole_number
from neuroexapt.config import GrowConfig, ModelConfig, from_json
from neuroexapt.errors import CheckpointError, InputError
from neuroexapt.graph import trace
from neuroexapt.models import build_model
from neuroexapt.models.build import BUILT_IN
from neuroexapt.train import CheckpointStore, load_grown, read_checkpoint

BATCH_SIZE = 2
WIDTH_OF_FILES = 160  # columns, where the output is no terminal
DEFAULT_INPUT, DEFAULT_CLASSES = (3, 32, 32), 10
MAX_PIXELS = 1 << 24  # of one input, channels included


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "inspect",
        help="show layers, channel groups and possible edits",
        description="Show what a model is made of, which parameter slices must change together (channel groups), "
        "what can be done to each, and why not.",
    )
    parser.add_argument(
        "target",
        metavar="RUN|CHECKPOINT|MODEL",
        help='a run folder (its newest checkpoint), a checkpoint folder, "resnet", "mlp", or package.module:function',
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


def run(options: argparse.Namespace) -> int:
    """Prints totals, layers and groups."""
    path = Path(options.target)
    model, shape = _from_checkpoint(path, options) if path.exists() else _from_function(options)
    inputs = torch.randn(BATCH_SIZE, *shape, generator=torch.Generator().manual_seed(0))
    graph = trace(model, inputs)
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=WIDTH_OF_FILES)
    console.print(totals(graph), highlight=False)
    console.print(layer_table(graph))
    console.print(group_table(graph))
    return 0


def _from_checkpoint(path: Path, options: argparse.Namespace) -> tuple[nn.Module, list[int]]:
    if options.input or options.classes:
        raise InputError(f"{path}: found --input or --classes, needed neither: a checkpoint knows its data. Drop them.")
    if (path / "checkpoints").is_dir():
        path = CheckpointStore(path / "checkpoints").newest().path
    elif not (path / "MANIFEST.json").is_file():
        raise CheckpointError(
            f"{path}: found neither checkpoints nor a MANIFEST.json, needed the folder of a run or of one checkpoint "
            "(RUN/checkpoints/step-...). Correct the path."
        )
    state = read_checkpoint(path).state
    if "config" not in state:
        raise CheckpointError(f"{path}: found a checkpoint without a config, needed one of `neuroexapt grow`.")
    config = from_json(GrowConfig, state["config"], where=str(path))
    channels, height, width = state["input"]
    model = build_model(
        config.model,
        in_channels=channels,
        image_size=(height, width),
        num_classes=state["num_classes"],
        seed=config.seed,
    )
    example = torch.zeros(BATCH_SIZE, channels, height, width)
    return load_grown(path, model, example, torch.device("cpu")), [channels, height, width]


def _from_function(options: argparse.Namespace) -> tuple[nn.Module, list[int]]:
    if options.target not in BUILT_IN and ":" not in options.target:
        raise InputError(
            f"{options.target}: found no such folder, needed a run, a checkpoint, "
            f"{', '.join(BUILT_IN)} or package.module:function. Correct the path or name."
        )
    channels, height, width = options.input or DEFAULT_INPUT
    model = build_model(
        ModelConfig(source=options.target),
        in_channels=channels,
        image_size=(height, width),
        num_classes=options.classes or DEFAULT_CLASSES,
        seed=0,
    )
    return model, [channels, height, width]


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
