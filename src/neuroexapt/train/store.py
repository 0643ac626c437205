"""Checkpoints on disk that survive a kill at any moment: the old one or the new one, never neither.

A checkpoint is one directory. It is written under a temporary name beside its target, synced, and renamed. One that
replaces an earlier one of the same step moves that aside first (``step-00000120.replaced``), and readers know that name
too. The store knows tensors and JSON, nothing of models. One process writes to a root at a time.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from safetensors import SafetensorError

from neuroexapt.errors import CheckpointError, InputError
from neuroexapt.resources import free_disk_bytes
from neuroexapt.train.manifest import verify
from neuroexapt.train.payload import Payload, encode_state, read_files, sync, tensor_bytes, write_files

logger = logging.getLogger(__name__)

MIN_KEEP = 2  # the newest may turn out damaged
DISK_RESERVE = 1.2  # free space needed over the size of the checkpoint
REPLACED = ".replaced"

_STEP_NAME = re.compile(r"step-([0-9]{8,18})(\.replaced)?")
_TEMPORARY_NAME = re.compile(r"\.tmp-([0-9]{1,9})-[0-9a-f]{16}")


class Newest(NamedTuple):
    """The newest checkpoint that verifies, and the newer ones passed over, each with the reason."""

    path: Path
    payload: Payload
    skipped: list[tuple[Path, str]]


def write_checkpoint(directory: Path, payload: Payload) -> None:
    """Writes one checkpoint directory, all of it or nothing.

    Raises:
        CheckpointError: ``directory`` exists, the payload cannot be stored, or the disk is full or refuses.
    """
    if os.path.lexists(directory):
        raise CheckpointError(f"{directory}: exists already, needed a new name. Choose another, or remove it first.")
    with _staged(directory, payload) as temporary:
        os.rename(temporary, directory)
        sync(directory.parent)


def read_checkpoint(directory: Path, *, device: str | torch.device = "cpu") -> Payload:
    """Verifies one checkpoint directory, then loads it onto ``device``.

    Raises:
        CheckpointError: Says which file is damaged, missing, unknown or not what it claims to be.
    """
    return read_files(directory, verify(directory), device)


class CheckpointStore:
    """The checkpoints of one run, named after their step. Memory: their names.

    Args:
        root: The directory that holds them; made on the first save.
        keep: How many sound checkpoints ``purge`` leaves besides the pinned ones, at least 2.
    """

    def __init__(self, root: Path, keep: int = MIN_KEEP) -> None:
        if keep < MIN_KEEP:
            raise InputError(f"keep: found {keep}, needed at least {MIN_KEEP}: the newest checkpoint may be damaged.")
        self.root = Path(root)
        self.keep = keep
        self._sound: set[str] = set()  # names that this object wrote or verified

    @property
    def is_empty(self) -> bool:
        """Whether no checkpoint, sound or damaged, is there."""
        return not self._candidates()

    def save(self, step: int, payload: Payload) -> Path:
        """Writes ``step-00000120``; an earlier checkpoint of that step is replaced, safely.

        Raises:
            CheckpointError: Says why. The earlier checkpoints are still there, one of this step too.
        """
        if step < 0:
            raise CheckpointError(f"{self.root}: found step {step}, needed 0 or more.")
        target = self.root / f"step-{step:08d}"
        if os.path.lexists(target) and (target.is_symlink() or not target.is_dir()):
            raise CheckpointError(f"{target}: found a file or link, needed a checkpoint or nothing. Move it away.")
        with _staged(target, payload) as temporary:
            self._settle(target)
            _swap_in(temporary, target)
        self._sound.add(target.name)
        _discard(_aside(target))
        return target

    def newest(self, *, device: str | torch.device = "cpu") -> Newest:
        """Loads the newest checkpoint that verifies; writes nothing.

        Raises:
            CheckpointError: There is none; the message lists what is wrong with each.
        """
        skipped: list[tuple[Path, str]] = []
        for path in self._candidates():
            try:
                payload = read_checkpoint(path, device=device)
            except CheckpointError as error:
                skipped.append((path, str(error)))
                continue
            self._sound.add(path.name)
            return Newest(path, payload, skipped)
        reasons = "".join(f"\n  {reason}" for _, reason in skipped[:10])
        raise CheckpointError(
            f"{self.root}: found no checkpoint that verifies among {len(skipped)}, needed one. "
            f"Check the folder, or start a new run.{reasons}"
        )

    def purge(self, pinned: Collection[str] = ()) -> list[Path]:
        """Removes what is older than the newest ``keep`` sound checkpoints, and what dead processes left behind.

        A damaged checkpoint does not count. Each checkpoint is verified once in the life of this object.

        Args:
            pinned: Names, such as ``step-00000120``, that stay whatever their age.

        Returns:
            The checkpoints removed. One that cannot be removed is logged as a warning and stays.
        """
        for leftover in self._candidates():
            if leftover.name.endswith(REPLACED):
                self._settle(leftover.with_name(leftover.name.removesuffix(REPLACED)))
        self._remove_stale()
        removed, num_sound = [], 0
        for path in self._candidates():
            if num_sound >= self.keep and path.name not in pinned:
                self._sound.discard(path.name)
                removed += [path] if _discard(path) else []
            elif self._is_sound(path):
                num_sound += 1
        return removed

    def _candidates(self) -> list[Path]:
        """Returns the checkpoint directories, newest first; one that was moved aside comes after its successor."""
        if not os.path.isdir(self.root):
            return []
        try:
            entries = [entry.name for entry in os.scandir(self.root) if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            raise CheckpointError(f"{self.root}: cannot be listed: {error}. Check its permissions.") from error
        matches = [match for name in entries if (match := _STEP_NAME.fullmatch(name))]
        return [self.root / m.string for m in sorted(matches, key=lambda m: (-int(m[1]), m[2] is not None))]

    def _is_sound(self, path: Path) -> bool:
        if path.name not in self._sound:
            try:
                verify(path)
            except CheckpointError:
                return False
            self._sound.add(path.name)
        return True

    def _settle(self, target: Path) -> None:
        """Ends a replacement that a kill cut short: afterwards ``target`` is the only one of its step."""
        aside = _aside(target)
        if not aside.is_dir():
            return
        target_stays = target.is_dir() and (self._is_sound(target) or not self._is_sound(aside))
        self._sound.discard(aside.name)
        if target_stays:
            _discard(aside)
            return
        self._sound.discard(target.name)
        _discard(target)
        try:
            os.rename(aside, target)
        except OSError as error:
            logger.warning("%s: cannot be renamed: %s. It is still found under this name.", aside, error)

    def _remove_stale(self) -> None:
        for entry in list(os.scandir(self.root)) if os.path.isdir(self.root) else []:
            match = _TEMPORARY_NAME.fullmatch(entry.name)
            if match and (int(match[1]) == os.getpid() or not psutil.pid_exists(int(match[1]))):
                _delete(Path(entry.path))


@contextmanager
def _staged(target: Path, payload: Payload) -> Iterator[Path]:
    """Yields a complete checkpoint under a temporary name beside ``target``; removes it unless it was renamed."""
    state = encode_state(payload.state)
    needed = int(DISK_RESERVE * (tensor_bytes(payload) + len(state)))
    temporary = _temporary_beside(target)
    try:
        if not os.path.isdir(target.parent):
            target.parent.mkdir(parents=True)
            sync(target.parent.parent)
        if (free := free_disk_bytes(target.parent)) < needed:
            raise CheckpointError(_disk_message(target, needed, free, "the disk is nearly full"))
        temporary.mkdir()
        write_files(temporary, payload, state)
        yield temporary
    except (OSError, SafetensorError) as error:
        free = free_disk_bytes(target.parent)
        raise CheckpointError(_disk_message(target, needed, free, str(error))) from error
    finally:
        if os.path.lexists(temporary):
            _delete(temporary)


def _swap_in(temporary: Path, target: Path) -> None:
    """Renames ``temporary`` to ``target``; a checkpoint of that name is moved aside, where readers still find it."""
    if not target.exists():
        os.rename(temporary, target)
    else:
        os.rename(target, _aside(target))
        try:
            os.rename(temporary, target)
        except OSError:
            os.rename(_aside(target), target)
            raise
    sync(target.parent)


def _aside(target: Path) -> Path:
    return target.with_name(target.name + REPLACED)


def _temporary_beside(path: Path) -> Path:
    return path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(8)}")


def _discard(path: Path) -> bool:
    """Removes a checkpoint by renaming it first, so that a kill never leaves half of one under its own name."""
    if not os.path.lexists(path):
        return False
    doomed = _temporary_beside(path)
    try:
        os.rename(path, doomed)
    except OSError as error:
        logger.warning("%s: cannot be removed: %s. It stays.", path, error)
        return False
    _delete(doomed)
    return True


def _delete(temporary: Path) -> None:
    try:
        shutil.rmtree(temporary)
    except OSError as error:
        logger.warning("%s: cannot be removed: %s. Remove it by hand, or leave it to a later purge.", temporary, error)


def _disk_message(target: Path, needed: int, free: int, reason: str) -> str:
    return (
        f"{target}: could not be written: {reason}. Needed {needed:,} bytes with a reserve, found {free:,} free. "
        "The earlier checkpoints are as they were. Make room there or choose another folder."
    )
