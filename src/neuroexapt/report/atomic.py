"""A file is there whole, or as it was before: written beside its place, then renamed over it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_MODE = 0o644  # what a report is for: to be read by others; mkstemp would leave 0600


def write_atomically(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path`` in one step; no reader ever sees half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, _MODE)
        os.replace(name, path)
    except BaseException:  # an interrupt too must not leave the half-written file lying about
        Path(name).unlink(missing_ok=True)
        raise
