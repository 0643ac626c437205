"""The journal: what happened in a run, one JSON line per event, in order.

A run can be killed while a line is being written, so the last line may be torn. It never counts as an event: the reader
passes it over with a warning and the writer cuts it off before it appends. Damage anywhere else is an error.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from neuroexapt.errors import InputError, TrainingError
from neuroexapt.events import Event, event_from_json, event_to_json

_log = logging.getLogger(__name__)


class JournalWriter:
    """An event sink that appends to ``journal.jsonl``. Memory: one event.

    Each record is flushed to the disk before ``send`` returns: a checkpoint that counts on n events finds n.
    A journal that exists is continued; call ``rewind(0)`` to start over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            _cut_torn_tail(path)

    def send(self, event: Event) -> None:
        """Appends one event with the time, UTC.

        Raises:
            TrainingError: The disk does not take the record; what was written of it is cut off again.
        """
        record = event_to_json(event) | {"time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        line = json.dumps(record, ensure_ascii=False, default=str).encode() + b"\n"
        end = self.path.stat().st_size if self.path.exists() else 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if self.path.exists():
                os.truncate(self.path, end)
            raise TrainingError(
                f"{self.path}: the journal cannot be written: {error.strerror}. Free space there and resume the run."
            ) from error

    def rewind(self, num_events: int) -> None:
        """Cuts the file after its first ``num_events`` events; with fewer in it, says so and leaves them.

        Raises:
            InputError: A line among the first ``num_events`` is damaged.
        """
        if not self.path.exists():
            return
        end = num_found = 0
        for _, record, line_end in _records(self.path):
            if num_found == num_events or record is None:
                break
            num_found, end = num_found + 1, line_end
        if num_found < num_events:
            _log.warning("%s: holds %d of the %d events to keep; the rest is lost.", self.path, num_found, num_events)
        os.truncate(self.path, end)


def read_journal(path: Path) -> list[Event]:
    """Reads all events of a journal; a torn last line is passed over with a logged warning.

    Raises:
        InputError: There is no such file, or a line other than a torn last one is no event; the message names the line.
    """
    if not path.is_file():
        raise InputError(f"{path}: no journal there. Name the folder of a run, or wait for the run's first event.")
    events = []
    for number, record, _ in _records(path):
        if record is None:
            _log.warning("%s, line %d: torn, as the run was killed while writing it; left out.", path, number)
            continue
        try:
            events.append(event_from_json(record))
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from error
    return events


def _cut_torn_tail(path: Path) -> None:
    """Removes a torn last line and ends a whole one with the newline that it lacks."""
    content = path.read_bytes()
    last = content.rfind(b"\n", 0, len(content.rstrip())) + 1
    if not content[last:].strip():
        return
    if _parse(content[last:]) is None:
        _log.warning("%s: the last line is torn, as the run was killed while writing it; cut off.", path)
        os.truncate(path, last)
    elif not content.endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any] | None, int]]:
    """Yields line number, record and the offset of the line's end; the record is None for a torn last line."""
    lines = path.read_bytes().splitlines(keepends=True)
    num_lines = max((number for number, line in enumerate(lines, start=1) if line.strip()), default=0)
    end = 0
    for number, line in enumerate(lines[:num_lines], start=1):
        end += len(line)
        if not line.strip():
            continue
        record = _parse(line)
        if record is None and number < num_lines:
            raise InputError(
                f"{path}, line {number}: {line[:60].decode(errors='replace').strip()!r} is not a JSON record. "
                "Restore the file, or delete that line if the event can be missed."
            )
        yield number, record, end


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:  # undecodable bytes are a ValueError too
        return None
    return record if isinstance(record, dict) else None
