"""``neuroexapt grow``: train a small network on images and let it grow."""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from neuroexapt.analysis.estimators import ESTIMATORS
from neuroexapt.cli.arguments import warn
from neuroexapt.cli.display import Display
from neuroexapt.cli.flags import ALLOWED_WITH_RESUME, add_flags, given, settings
from neuroexapt.cli.run_folder import (
    JOURNAL,
    new_run,
    old_run,
    refuse_occupied,
    saved_config,
    write_config,
    write_experience,
)
from neuroexapt.config import GrowConfig, apply_overrides, from_json, load_config, put, to_json
from neuroexapt.data import load_data
from neuroexapt.data.splits import DataSplits
from neuroexapt.errors import ConfigError, InputError, NeuroExaptError, TrainingError
from neuroexapt.events import Event
from neuroexapt.models import build_model
from neuroexapt.morphogenesis.checks import check_config, read_experience
from neuroexapt.report import JournalWriter, write_report
from neuroexapt.resources import pick_device
from neuroexapt.train import Trainer, check_model

DONE, STOPPED = 0, 3


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "grow",
        help="train a small network on images and let it grow",
        description="Train a small network on images and let it grow. What is written lies in one folder.",
        epilog="Every other setting is in the config: --set train.optimizer=sgd, --set 'morphogenesis.kinds=[Widen]'. "
        "Later wins: defaults, --config, --set, flags.",
    )
    add_flags(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="new folder for the run (default: runs/DATA-MODEL-seedSEED)"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML, TOML or JSON file with settings (default: none)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any setting, value as YAML; may be given often (default: none)",
    )
    parser.add_argument(
        "--resume", type=Path, metavar="RUN", help="go on with the run in this folder (default: start a new one)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs or resumes one training and writes its report."""
    is_resumed = options.resume is not None
    config, run_dir = _resumed(options) if is_resumed else _fresh(options)
    _check_names(config)
    if config.threads is not None:
        torch.set_num_threads(min(config.threads, os.cpu_count() or 1))
    data = load_data(config.data, seed=config.seed)
    model = build_model(
        config.model,
        in_channels=data.in_channels,
        image_size=data.image_size,
        num_classes=data.num_classes,
        seed=config.seed,
    )
    check_model(model, data)
    holding: AbstractContextManager[None] = old_run(run_dir) if is_resumed else new_run(run_dir, config)
    with holding:
        return _train(config, run_dir, model, data, is_resumed)


def _train(config: GrowConfig, run_dir: Path, model: nn.Module, data: DataSplits, is_resumed: bool) -> int:
    display = Display(Console(), to_json(config))
    start = _Start(lambda: write_config(run_dir, config))  # a resumed run may have got more time
    code = STOPPED
    with _stop_signals() as why:
        try:
            result = Trainer(
                config,
                run_dir,
                [start, JournalWriter(run_dir / JOURNAL), display],
                command=shlex.join(["neuroexapt", *sys.argv[1:]]),
                should_stop=lambda: why[-1] if why else "",
            ).fit(model, data, resume=is_resumed)
            code = DONE if result.is_complete else STOPPED
            write_experience(run_dir, result.experience)
        except InputError as error:
            if start.is_behind:
                raise TrainingError(f"{error} The run is saved up to its last checkpoint.") from error
            raise
        finally:
            display.close()
            if start.is_behind:
                _close(run_dir, is_done=code == DONE)
    return code


class _Start:
    """A sink that notes when the first event comes: from then on there is a run, and faults are not bad input."""

    def __init__(self, on_start: Callable[[], None]) -> None:
        self.is_behind = False
        self._on_start = on_start

    def send(self, event: Event) -> None:
        """Takes one event."""
        if not self.is_behind:
            self._on_start()
        self.is_behind = True

    def rewind(self, num_events: int) -> None:
        """Does nothing: a start stays a start."""


def _close(run_dir: Path, *, is_done: bool) -> None:
    """Writes the report, whatever ended the run; a report that fails must not hide why."""
    try:
        print(f"report: {write_report(run_dir)}")
    except (NeuroExaptError, OSError) as error:
        warn(f"the report could not be written: {error}. Draw it later: neuroexapt report {run_dir}")
    if not is_done:
        print(f"go on: neuroexapt grow --resume {shlex.quote(str(run_dir))}")


def _fresh(options: argparse.Namespace) -> tuple[GrowConfig, Path]:
    record = load_config(GrowConfig, options.config) if options.config else {}
    record = apply_overrides(record, options.set)
    for key, value in settings(options).items():
        put(record, key, value)
    config = from_json(GrowConfig, record)
    data = Path(config.data.source).resolve().name
    run_dir = options.out or Path("runs") / f"{data}-{config.model.source.replace(':', '.')}-seed{config.seed}"
    refuse_occupied(run_dir)
    return config, run_dir


def _resumed(options: argparse.Namespace) -> tuple[GrowConfig, Path]:
    others = [flag for flag in given(options) if flag not in ALLOWED_WITH_RESUME]
    others += [f"--{name}" for name in ("set", "config", "out") if getattr(options, name)]
    if others:
        raise ConfigError(
            f"--resume: found {', '.join(others)} beside it, needed the run's own settings; only "
            f"{', '.join(ALLOWED_WITH_RESUME)} may change. Leave the others away."
        )
    return saved_config(options.resume, settings(options)), options.resume


def _check_names(config: GrowConfig) -> None:
    """Checks the names that the configuration itself cannot know, before anything is loaded or written.

    Raises:
        InputError: There is no such device, estimator, mutation kind, trigger, policy, score or file of experience.
    """
    pick_device(config.device)
    check_config(config.morphogenesis, has_evidence=True)
    read_experience(config.morphogenesis)
    for name in config.evidence.estimators or ():
        if name not in ESTIMATORS:
            near = difflib.get_close_matches(name, ESTIMATORS, n=1)
            hint = f"Did you mean {near[0]}?" if near else "Correct the name."
            raise ConfigError(f"evidence.estimators: found {name!r}, needed some of {', '.join(ESTIMATORS)}. {hint}")


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
