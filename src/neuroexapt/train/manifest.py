"""What a checkpoint directory must hold, with a digest of every file and of the list itself.

Neither safetensors nor JSON notices a flipped bit, so the manifest does: it is written last, in one canonical form, and
``verify`` compares it with the directory before anything else is parsed. The digests find damage; they are no
signature, and whoever can write the files can write the manifest too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from neuroexapt.errors import CheckpointError

MANIFEST_NAME = "MANIFEST.json"
STATE_NAME = "state.json"
STEM_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
FORMAT_NAME = "neuroexapt-checkpoint"
FORMAT_VERSION = 1
MAX_MANIFEST_BYTES = 1 << 20

_HINT = "Use another checkpoint, or copy this one again from where it was written."


def tensor_file_name(stem: str) -> str:
    """Returns the name of the file that holds the tensors called ``stem``."""
    return f"{stem}.safetensors"


def render_manifest(directory: Path) -> bytes:
    """Reads every file of ``directory`` once and returns the manifest that describes them."""
    files = {
        entry.name: {"bytes": entry.stat().st_size, "sha256": _digest(Path(entry.path))}
        for entry in os.scandir(directory)
        if entry.name != MANIFEST_NAME
    }
    return _canonical({"files": files, "format": FORMAT_NAME, "version": FORMAT_VERSION})


def verify(directory: Path) -> list[str]:
    """Checks names, kinds, sizes and digests; returns the names of the files, parses nothing but the manifest.

    Cost: every byte is read once, in constant memory.

    Raises:
        CheckpointError: Names the first file that is not as the manifest says.
    """
    try:
        files = _read_manifest(directory / MANIFEST_NAME)
        _check_names(directory, files)
        for name, entry in files.items():
            _check_size(directory / name, entry["bytes"])
        for name, entry in files.items():
            if (found := _digest(directory / name)) != entry["sha256"]:
                raise CheckpointError(
                    f"{directory / name}: found sha256 {found}, needed {entry['sha256']}: its content changed. {_HINT}"
                )
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be read: {error}. Check the path and its permissions.") from error
    return sorted(files)


def _canonical(record: dict[str, Any]) -> bytes:
    """Returns the one spelling of a manifest: sorted, with a digest of all the rest under ``sha256``."""
    body = {key: value for key, value in record.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**body, "sha256": digest}, sort_keys=True, indent=1) + "\n").encode()


def _read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    if not os.path.lexists(path):
        raise CheckpointError(f"{path}: no such file, so this is not a finished checkpoint. {_HINT}")
    _check_regular(path)
    with path.open("rb") as file:
        raw = file.read(MAX_MANIFEST_BYTES + 1)
    if len(raw) > MAX_MANIFEST_BYTES:
        raise CheckpointError(f"{path}: found more than the {MAX_MANIFEST_BYTES} bytes a manifest may have. {_HINT}")
    try:
        record = json.loads(raw)
        untouched = isinstance(record, dict) and _canonical(record) == raw
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: found no JSON ({error}), needed a manifest. {_HINT}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT_NAME:
        raise CheckpointError(f"{path}: found no 'format' {FORMAT_NAME!r}. {_HINT}")
    if record.get("version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: found format version {record.get('version')!r}, needed {FORMAT_VERSION}. "
            "Read it with the version of neuroexapt that wrote it."
        )
    if not untouched:
        raise CheckpointError(f"{path}: does not match its own digest: it was changed after it was written. {_HINT}")
    return _checked_files(path, record.get("files"))


def _checked_files(path: Path, files: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(files, dict) or STATE_NAME not in files:
        raise CheckpointError(f"{path}: lists no {STATE_NAME}, which every checkpoint has. {_HINT}")
    for name, entry in files.items():
        stem = name.removesuffix(".safetensors")
        if name != STATE_NAME and (stem == name or not STEM_PATTERN.fullmatch(stem)):
            raise CheckpointError(f"{path}: lists {name!r}, needed {STATE_NAME} or <stem>.safetensors. {_HINT}")
        kinds = {key: type(value) for key, value in entry.items()} if isinstance(entry, dict) else {}
        if kinds != {"bytes": int, "sha256": str}:
            raise CheckpointError(f"{path}: {name}: found {entry!r}, needed its 'bytes' and 'sha256'. {_HINT}")
    return files


def _check_names(directory: Path, files: dict[str, dict[str, Any]]) -> None:
    present = {entry.name for entry in os.scandir(directory)}
    needed = {*files, MANIFEST_NAME}
    if missing := sorted(needed - present):
        raise CheckpointError(f"{directory / missing[0]}: missing, but listed in {MANIFEST_NAME}. {_HINT}")
    if extra := sorted(present - needed):
        raise CheckpointError(f"{directory / extra[0]}: not listed in {MANIFEST_NAME}. Move it out of the checkpoint.")


def _check_size(path: Path, needed: int) -> None:
    _check_regular(path)
    if (found := path.stat().st_size) != needed:
        raise CheckpointError(f"{path}: found {found:,} bytes, needed {needed:,}: cut off or overwritten. {_HINT}")


def _check_regular(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise CheckpointError(f"{path}: found a link, folder or device, needed a plain file. {_HINT}")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
