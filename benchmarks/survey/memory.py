"""Peak memory of a piece of code, as the kernel counts it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


@dataclass
class Peak:
    """Bytes above what was resident at the start."""

    extra_bytes: int = 0


@contextlib.contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measures the peak of the resident memory inside, over its size at the start (Linux).

    Everything counts: tensors, Python objects, and modules that are imported for the first time.
    """
    gc.collect()
    _RESET.write_text("5")  # the high-water mark starts again from here
    start = _kilobytes("VmRSS")
    peak = Peak()
    try:
        yield peak
    finally:
        peak.extra_bytes = max(0, _kilobytes("VmHWM") - start) * 1024


def _kilobytes(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])
