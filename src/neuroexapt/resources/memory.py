"""Readings of this process's memory and of the free disk, in bytes."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import psutil
import torch

if sys.platform != "win32":
    import resource

_PROCESS_STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    """Returns the bytes of physical memory that this process holds now (its resident set)."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """Returns the largest resident set of this process since it started.

    Linux's own high-water mark is read first: ``ru_maxrss`` there starts from the parent's peak after an exec.
    """
    return max(_recorded_peak(), resident_bytes())


class MemoryGauge:
    """By how much memory has grown since it was made: on CUDA the allocator's peak, else the process's.

    On CPU it reads 0 until the process exceeds the most that it had held before, and a peak holds whatever else the
    process did meanwhile.

    Args:
        device: Whose memory.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._held, self._peak = resident_bytes(), peak_resident_bytes()

    def grown_bytes(self) -> int:
        """Returns the peak since then beyond what was held then; on CUDA, all that was allocated."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        peak = peak_resident_bytes()
        return peak - self._held if peak > self._peak else 0


def free_disk_bytes(path: Path | str) -> int:
    """Returns the bytes that this user may still write at ``path``, or at its nearest parent that exists."""
    place = Path(path).absolute()
    while not os.path.exists(place) and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def _recorded_peak() -> int:
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if _PROCESS_STATUS.is_file():
        found = re.search(r"^VmHWM:\s+(\d+) kB$", _PROCESS_STATUS.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, the others KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
