"""The flags of ``neuroexapt grow`` that stand for a setting; their defaults are read from the configuration."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

from neuroexapt.cli.arguments import number, whole_number
from neuroexapt.config import GrowConfig
from neuroexapt.morphogenesis import POLICIES


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag: its name, the setting it stands for, how its text is read, its help, and what no value means."""

    name: str
    key: str
    read: Callable[[str], Any]
    text: str
    unset: str = "none"

    @property
    def default(self) -> str:
        """The configuration's default, as help shows it."""
        value = reduce(getattr, self.key.split("."), GrowConfig())
        if value is None:
            return self.unset
        return f"{value:g}" if isinstance(value, float) else str(value)

    def value_in(self, options: argparse.Namespace) -> Any:
        """Returns what was given, or ``None``."""
        return getattr(options, self.name.removeprefix("--").replace("-", "_"))


FLAGS = (
    Flag("--data", "data.source", str, '"digits", a Parquet file or folder, or a folder with a sub-folder per class'),
    Flag("--limit", "data.limit", whole_number, "use at most this many images to train and validate", "all"),
    Flag("--model", "model.source", str, '"resnet", "convnet", "mlp" or package.module:function'),
    Flag("--epochs", "train.epochs", whole_number, "passes over the training data"),
    Flag("--batch-size", "train.batch_size", whole_number, "images per update"),
    Flag("--learning-rate", "train.learning_rate", number, "the peak, after warm-up"),
    Flag("--policy", "morphogenesis.policy", str, f"which edits are tried first: {', '.join(POLICIES)}"),
    Flag("--max-events", "morphogenesis.max_events", whole_number, "events with edits kept, at most; 0 never grows"),
    Flag(
        "--max-parameter-ratio",
        "morphogenesis.max_parameter_ratio",
        number,
        "parameters at the end over those of the seed network, at most",
    ),
    Flag("--max-flop-ratio", "morphogenesis.max_flop_ratio", number, "the same for forward FLOPs"),
    Flag(
        "--max-bytes",
        "morphogenesis.max_bytes",
        whole_number,
        "bytes that one training step may take after an edit, as predicted before it",
        "no limit",
    ),
    Flag("--max-seconds", "train.max_seconds", number, "seconds of wall time after which the run stops, saved"),
    Flag("--seed", "seed", whole_number, "of weights, data order and edits"),
    Flag("--device", "device", str, '"auto", "cpu", "cuda", "cuda:1" or "mps"'),
)
ALLOWED_WITH_RESUME = ("--max-seconds",)

_METAVARS = {whole_number: "N", number: "X", str: "TEXT"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds all of them."""
    for flag in FLAGS:
        text = f"{flag.text} (default: {flag.default})".replace("%", "%%")
        parser.add_argument(flag.name, type=flag.read, help=text, metavar=_METAVARS[flag.read])


def given(options: argparse.Namespace) -> dict[str, Any]:
    """Returns flag -> value of those that were given."""
    return {flag.name: value for flag in FLAGS if (value := flag.value_in(options)) is not None}


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Returns key -> value of the flags that were given."""
    return {flag.key: value for flag in FLAGS if (value := flag.value_in(options)) is not None}
