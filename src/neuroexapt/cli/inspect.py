"""``neuroexapt inspect``: what a model is, and what can be done to each part of it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from neuroexapt.config import GrowConfig, ModelConfig, from_json
from neuroexapt.errors import CheckpointError, InputError
from neuroexapt.graph import ModelGraph, permutation_error, trace
from neuroexapt.models import build_model
from neuroexapt.report.quantities import in_bytes, in_count, in_flops
from neuroexapt.surgery import candidates
from neuroexapt.train import CheckpointStore, load_grown, read_checkpoint

BATCH_SIZE = 2
WIDTH_OF_FILES = 160  # columns, where the output is no terminal


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("inspect", help="show layers, channel groups and possible edits", description=__doc__)
    parser.add_argument(
        "target", metavar="CHECKPOINT|MODEL", help="a run or checkpoint folder, or package.module:function"
    )
    parser.add_argument(
        "--input", default="3x32x32", metavar="CxHxW", help="image size for a function (default: 3x32x32)"
    )
    parser.add_argument("--classes", type=int, default=10, help="classes for a function (default: 10)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints three tables: totals, layers, groups."""
    path = Path(options.target)
    model, shape = _from_checkpoint(path) if path.exists() else _from_function(options)
    inputs = torch.randn(BATCH_SIZE, *shape, generator=torch.Generator().manual_seed(0))
    graph = trace(model, inputs)
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=WIDTH_OF_FILES)
    console.print(_totals(graph), highlight=False)
    console.print(_layers(graph))
    console.print(_groups(graph))
    return 0


def _from_checkpoint(path: Path) -> tuple[nn.Module, list[int]]:
    if (path / "checkpoints").is_dir():
        path = CheckpointStore(path / "checkpoints").newest().path
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
    if not re.fullmatch(r"\d+x\d+x\d+", options.input) or options.classes < 1:
        raise InputError(f"--input: found {options.input!r} and {options.classes} classes, needed e.g. 3x32x32 and 10.")
    channels, height, width = map(int, options.input.split("x"))
    model = build_model(
        ModelConfig(source=options.target),
        in_channels=channels,
        image_size=(height, width),
        num_classes=options.classes,
        seed=0,
    )
    return model, [channels, height, width]


def _totals(graph: ModelGraph) -> str:
    cost = graph.cost
    free = [group for group in graph.groups if not group.pin_reason]
    error = permutation_error(graph, torch.Generator().manual_seed(0), free)
    lines = [
        f"{type(graph.model).__name__}: {in_count(cost.num_parameters)} parameters, "
        f"{in_flops(cost.flops_per_sample)} and {in_bytes(cost.activation_bytes // cost.batch_size)} of activations "
        "per sample",
        f"self-test: permuting all {len(free)} free axes at once changes the outputs by {error:.1e}",
        *(f"note: {note}" for note in graph.notes),
        *(f"no rule for {name}: {why}" for name, why in graph.unknown_operators.items()),
    ]
    return "\n".join(lines)


def _layers(graph: ModelGraph) -> Table:
    table = Table(
        "layer", "kind", "output", "parameters", "FLOPs a sample", "edits", title="Layers", title_justify="left"
    )
    edits: dict[str, list[str]] = {}
    for mutation in candidates(graph):
        place = mutation.place if mutation.place not in _names(graph) else graph.group(mutation.place).producers[0]
        edits.setdefault(place, []).append(type(mutation).__name__)
    for call in graph.calls:
        module = graph.model.get_submodule(call.path)
        own = sum(p.numel() for p in module.parameters(recurse=False))
        flops = graph.cost.flops_by_module.get(call.path, 0) // graph.cost.batch_size
        if own or flops or call.path in edits:
            shape = "x".join(map(str, call.shape[1:])) or "several"
            found = ", ".join(edits.get(call.path, []))
            kind = type(module).__name__.replace("Grafted", "grafted ")
            table.add_row(call.path, kind, shape, in_count(own), in_flops(flops), found)
    return table


def _names(graph: ModelGraph) -> set[str]:
    return {group.name for group in graph.groups}


def _groups(graph: ModelGraph) -> Table:
    table = Table(
        "group",
        "units",
        "made by",
        "read by",
        "widen",
        "prune",
        "why not",
        title="Channel groups",
        title_justify="left",
    )
    for group in graph.groups:
        table.add_row(
            group.name,
            str(group.size),
            _short(group.producers),
            _short(group.consumers),
            _tick(group.can_widen),
            _tick(group.can_prune),
            group.reason,
        )
    return table


def _short(paths: tuple[str, ...]) -> str:
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def _tick(is_possible: bool) -> str:
    return "yes" if is_possible else "no"
