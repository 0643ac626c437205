"""An architecture named on the command line: a run, a checkpoint, a built-in network or anybody's function."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from neuroexapt.config import GrowConfig, ModelConfig, from_json
from neuroexapt.errors import CheckpointError, InputError
from neuroexapt.graph import ModelGraph, trace
from neuroexapt.models import build_model
from neuroexapt.models.build import BUILT_IN
from neuroexapt.surgery import Lineage
from neuroexapt.train import CheckpointStore, load_grown, read_checkpoint

BATCH_SIZE = 2
DEFAULT_INPUT, DEFAULT_CLASSES = (3, 32, 32), 10


@dataclass(frozen=True, slots=True, eq=False)
class Architecture:
    """What was named.

    Attributes:
        model: The network as it is.
        source: The seed network that it began as.
        input_shape: Channels, height and width of an image.
        num_classes: Of its head.
        lineage: How it grew from its seed network.
        config: Of the run that it comes from.
        fingerprint: Of the data of that run.
    """

    model: nn.Module
    source: ModelConfig
    input_shape: tuple[int, int, int]
    num_classes: int
    lineage: Lineage
    config: GrowConfig | None = None
    fingerprint: str = ""

    @property
    def inputs(self) -> torch.Tensor:
        """A batch of random images."""
        return torch.randn(BATCH_SIZE, *self.input_shape, generator=torch.Generator().manual_seed(0))

    def graph(self) -> ModelGraph:
        """Returns the model's graph."""
        return trace(self.model, self.inputs)


def architecture(target: str, options: argparse.Namespace) -> Architecture:
    """Reads what a target names; ``--input`` and ``--classes`` say what a function is called for.

    Raises:
        InputError: There is no such thing, or it is damaged.
    """
    path = Path(target)
    if not path.exists():
        return from_function(target, options.input or DEFAULT_INPUT, options.classes or DEFAULT_CLASSES)
    if options.input or options.classes:
        raise InputError(f"{path}: found --input or --classes, needed neither: a checkpoint knows its data. Drop them.")
    return from_checkpoint(path)


def from_checkpoint(path: Path) -> Architecture:
    """Reads the newest checkpoint of a run, or a checkpoint."""
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
    grown = load_grown(path, model, example, torch.device("cpu"))
    return Architecture(
        grown,
        config.model,
        (channels, height, width),
        state["num_classes"],
        Lineage.from_json(state["engine"]["lineage"]),
        config,
        state["data"],
    )


def from_function(target: str, input_shape: tuple[int, int, int], num_classes: int) -> Architecture:
    """Builds a built-in network, or calls a function."""
    if target not in BUILT_IN and ":" not in target:
        raise InputError(
            f"{target}: found no such folder, needed a run, a checkpoint, "
            f"{', '.join(BUILT_IN)} or package.module:function. Correct the path or name."
        )
    channels, height, width = input_shape
    source = ModelConfig(source=target)
    model = build_model(source, in_channels=channels, image_size=(height, width), num_classes=num_classes, seed=0)
    return Architecture(model, source, input_shape, num_classes, Lineage())
