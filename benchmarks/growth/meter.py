"""``Meter``: FLOPs by purpose, seconds by purpose, and the curve of one run."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TRAINING, SURGERY, STATISTICS = "training", "surgery", "statistics"
REPORTING = "reporting"  # test data on the way: in neither budget nor time
GROWTH = "growth"


class Meter:
    """Counts what one run spends. Of seconds, everything that is neither growth nor reporting is training."""

    def __init__(self) -> None:
        self.flops: Counter[str] = Counter()
        self.curve: list[tuple[float, float]] = []  # training FLOPs, everything counted -> test score
        self._apart: dict[str, list[float]] = {GROWTH: [0.0, 0.0], REPORTING: [0.0, 0.0]}
        self._began = _clocks()

    @property
    def total_flops(self) -> int:
        """FLOPs of all purposes so far."""
        return sum(self.flops.values())

    @contextmanager
    def apart(self, purpose: str) -> Iterator[None]:
        """Times what is inside as ``GROWTH`` or ``REPORTING``."""
        began = _clocks()
        yield
        for index, (now, then) in enumerate(zip(_clocks(), began, strict=True)):
            self._apart[purpose][index] += now - then

    def facts(self, discarded: float = 0.0) -> dict[str, Any]:
        """Returns what a row keeps of it; seconds are those until this call.

        Args:
            discarded: Share of the steps made that were thrown away; their time is growth's.
        """
        wall, cpu = (now - then for now, then in zip(_clocks(), self._began, strict=True))
        growth, reporting = self._apart[GROWTH], self._apart[REPORTING]
        steps = (wall - growth[0] - reporting[0], cpu - growth[1] - reporting[1])
        return {
            "flops": {purpose: flops for purpose, flops in self.flops.items() if flops},
            "total_flops": self.total_flops,
            "seconds": {
                "wall": round(wall - reporting[0], 4),
                "cpu": round(cpu - reporting[1], 4),
                "growth_wall": round(growth[0] + discarded * steps[0], 4),
                "growth_cpu": round(growth[1] + discarded * steps[1], 4),
            },
            "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            "curve": [(flops, round(score, 4)) for flops, score in self.curve],
        }


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
