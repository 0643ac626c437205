"""The folder of a run: made once, never written over, and written by one process at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from neuroexapt.cli.arguments import warn
from neuroexapt.config import GrowConfig, from_json, load_config, put, to_json
from neuroexapt.errors import CheckpointError, InputError
from neuroexapt.report.atomic import write_atomically

CONFIG, JOURNAL, EXPERIENCE = "config.json", "journal.jsonl", "experience.json"


def refuse_occupied(run_dir: Path) -> None:
    """Checks that a new run may have this folder: nothing is there, or an empty folder.

    Raises:
        InputError: Something is there, or it cannot be looked at.
    """
    try:
        if not os.path.lexists(run_dir):
            return
        if not run_dir.is_dir():
            raise InputError(f"{run_dir}: found a file, needed a new or empty folder. Give another --out.")
        names = sorted(os.listdir(run_dir))
    except OSError as error:
        raise InputError(f"{run_dir}: cannot be read: {error.strerror}. Give another --out.") from error
    if CONFIG in names:
        raise InputError(
            f"{run_dir}: found another run, needed a new or empty folder. "
            f"Give another --out, or go on with that run by --resume {run_dir}."
        )
    if names:
        raise InputError(f"{run_dir}: found {names[0]}, needed a new or empty folder. Give another --out.")


@contextmanager
def new_run(run_dir: Path, config: GrowConfig) -> Iterator[None]:
    """Makes the folder with its ``config.json`` and holds it; if nothing is run in it after all, takes it away.

    Raises:
        InputError: It is not free, another process has it, or it cannot be written.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{run_dir}: cannot be made: {error.strerror}. Give another --out.") from error
    with _held(run_dir):
        refuse_occupied(run_dir)
        try:
            write_config(run_dir, config)
            yield
        finally:
            if not (run_dir / JOURNAL).exists():
                _take_away(run_dir)


@contextmanager
def old_run(run_dir: Path) -> Iterator[None]:
    """Holds the folder of a run that is to go on.

    Raises:
        InputError: Another process is writing it.
    """
    with _held(run_dir):
        yield


def saved_config(run_dir: Path, changes: dict[str, object]) -> GrowConfig:
    """Returns a run's settings with some of them changed.

    Raises:
        InputError: The folder holds no run, or the settings do not fit.
    """
    path = run_dir / CONFIG
    if not path.is_file():
        raise CheckpointError(
            f"{run_dir}: found no {CONFIG}, needed the folder of a run. Start a new one with: neuroexapt grow."
        )
    record = load_config(GrowConfig, path)
    for key, value in changes.items():
        put(record, key, value)
    return from_json(GrowConfig, record)


def write_config(run_dir: Path, config: GrowConfig) -> None:
    """Writes ``config.json``, whole or not at all.

    Raises:
        InputError: The folder cannot be written.
    """
    try:
        write_atomically(run_dir / CONFIG, (json.dumps(to_json(config), indent=2) + "\n").encode())
    except OSError as error:
        raise InputError(f"{run_dir}: cannot be written: {error.strerror}. Give another --out.") from error


def write_experience(run_dir: Path, experience: dict[str, Any]) -> None:
    """Writes ``experience.json``, what edits have gained, with which another run may begin; whole or not at all.

    A run that is over is not spoiled by it: where it cannot be written, this is said.
    """
    try:
        write_atomically(run_dir / EXPERIENCE, (json.dumps(experience, indent=2) + "\n").encode())
    except OSError as error:
        warn(f"{run_dir / EXPERIENCE} could not be written: {error.strerror}. The run's last checkpoint holds it too.")


@contextmanager
def _held(run_dir: Path) -> Iterator[None]:
    """Locks the folder itself: the system frees it when the process ends, however it ends."""
    try:
        handle = os.open(run_dir, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{run_dir}: cannot be read: {error.strerror}. Give another folder.") from error
    try:
        with suppress(OSError):  # some network file systems lock no folders; runs there are not guarded
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"{run_dir}: found another process that is writing this run, needed it for this one alone. "
                    "Wait for its end, or give another --out."
                ) from error
        yield
    finally:
        os.close(handle)


def _take_away(run_dir: Path) -> None:
    with suppress(OSError):  # what else is in there is not ours
        (run_dir / CONFIG).unlink(missing_ok=True)
        run_dir.rmdir()
