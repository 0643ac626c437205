"""``neuroexapt grow``: train a small network and let it grow."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from neuroexapt.cli.display import Display
from neuroexapt.config import GrowConfig, apply_overrides, from_json, load_config, to_json
from neuroexapt.data import load_data
from neuroexapt.errors import CheckpointError, ConfigError, InputError
from neuroexapt.models import build_model
from neuroexapt.report import JournalWriter, write_report
from neuroexapt.train import Trainer, check_model

CONFIG, JOURNAL = "config.json", "journal.jsonl"

# flag -> (key in the configuration, type, help)
FLAGS: dict[str, tuple[str, type, str]] = {
    "--data": (
        "data.source",
        str,
        '"digits", a Parquet file or folder, or a folder of class folders (default: digits)',
    ),
    "--limit": ("data.limit", int, "use at most this many images for training and validation (default: all)"),
    "--model": ("model.source", str, '"resnet", "mlp" or package.module:function (default: resnet)'),
    "--epochs": ("train.epochs", int, "passes over the training data (default: 30)"),
    "--batch-size": ("train.batch_size", int, "samples per update (default: 64)"),
    "--learning-rate": ("train.learning_rate", float, "peak learning rate (default: 0.003)"),
    "--policy": ("morphogenesis.policy", str, 'where to grow: "uniform" or "evidence" (default: uniform)'),
    "--max-events": ("morphogenesis.max_events", int, "accepted edits at most; 0 never grows (default: 6)"),
    "--max-parameter-ratio": (
        "morphogenesis.max_parameter_ratio",
        float,
        "parameters at the end over those of the seed network, at most (default: 8)",
    ),
    "--max-flop-ratio": ("morphogenesis.max_flop_ratio", float, "the same for forward FLOPs (default: 8)"),
    "--max-seconds": ("train.max_seconds", float, "wall time after which the run stops, saved (default: none)"),
    "--seed": ("seed", int, "of weights, data order and edits (default: 0)"),
    "--device": ("device", str, '"auto", "cpu", "cuda", "cuda:1" or "mps" (default: auto)'),
}
ALLOWED_WITH_RESUME = ("--max-seconds",)


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("grow", help="train a small network on images and let it grow", description=__doc__)
    for flag, (_, kind, text) in FLAGS.items():
        parser.add_argument(flag, type=kind, help=text, metavar=kind.__name__.upper())
    parser.add_argument("--out", type=Path, help="new folder for the run (default: runs/DATA-MODEL-seedSEED)")
    parser.add_argument("--config", type=Path, help="YAML, TOML or JSON file with settings; flags win over it")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any setting, e.g. --set train.optimizer=sgd"
    )
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs or resumes one training and writes its report."""
    config, run_dir = _resumed(options) if options.resume else _fresh(options)
    data = load_data(config.data, seed=config.seed)
    model = build_model(
        config.model,
        in_channels=data.in_channels,
        image_size=data.image_size,
        num_classes=data.num_classes,
        seed=config.seed,
    )
    check_model(model, data)
    _write_config(run_dir, config)
    display = Display(Console(), num_epochs=config.train.epochs)
    with _stop_signals() as why:
        try:
            result = Trainer(
                config,
                run_dir,
                [JournalWriter(run_dir / JOURNAL), display],
                command=shlex.join(["neuroexapt", *sys.argv[1:]]),
                should_stop=lambda: why[-1] if why else "",
            ).fit(model, data, resume=bool(options.resume))
        finally:
            display.close()
            if (run_dir / JOURNAL).exists():
                print(f"report: {write_report(run_dir)}")
    return 0 if result.is_complete else 3


def _fresh(options: argparse.Namespace) -> tuple[GrowConfig, Path]:
    record = load_config(GrowConfig, options.config) if options.config else {}
    record = apply_overrides(record, [*options.set, *_assignments(options)])
    config = from_json(GrowConfig, record)
    name = f"{Path(config.data.source).name}-{config.model.source.replace(':', '.')}-seed{config.seed}"
    run_dir = options.out or Path("runs") / name
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise InputError(
            f"{run_dir}: holds another run or other files. Give another --out, or go on with it by --resume {run_dir}."
        )
    return config, run_dir


def _resumed(options: argparse.Namespace) -> tuple[GrowConfig, Path]:
    run_dir: Path = options.resume
    given = [flag for flag in FLAGS if _value(options, flag) is not None and flag not in ALLOWED_WITH_RESUME]
    if given or options.set or options.config or options.out:
        raise ConfigError(
            "--resume: takes its settings from the run. Leave the other options away"
            f"{' (' + ', '.join(given) + ')' if given else ''}; only {', '.join(ALLOWED_WITH_RESUME)} may change."
        )
    if not (run_dir / CONFIG).is_file():
        raise CheckpointError(
            f"{run_dir}: found no {CONFIG}, needed the folder of a run. Start one with --out {run_dir}."
        )
    record = apply_overrides(load_config(GrowConfig, run_dir / CONFIG), _assignments(options))
    return from_json(GrowConfig, record, where=str(run_dir / CONFIG)), run_dir


def _assignments(options: argparse.Namespace) -> list[str]:
    """Returns the flags that were given as ``key=value``."""
    found = ((key, _value(options, flag)) for flag, (key, _, _) in FLAGS.items())
    return [f"{key}={json.dumps(value)}" for key, value in found if value is not None]


def _value(options: argparse.Namespace, flag: str) -> Any:
    return getattr(options, flag.removeprefix("--").replace("-", "_"))


def _write_config(run_dir: Path, config: GrowConfig) -> None:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / CONFIG).write_text(json.dumps(to_json(config), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{run_dir}: cannot be written: {error}. Give another --out.") from error


@contextmanager
def _stop_signals() -> Iterator[list[str]]:
    """Turns the first SIGINT or SIGTERM into a wish that is met after the step; a second SIGINT acts at once."""
    why: list[str] = []

    def note(number: int, frame: object) -> None:
        why.append(f"interrupted by {signal.Signals(number).name}")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield why
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
