"""What a suite was asked to show, as values; the page says what was measured and whether that is enough."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from growth.statistics import paired
from growth.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One demand on the mean over the seeds of one arm; every part that is given has to hold.

    Attributes:
        arm: Which.
        at_least: Its score, or with ``than`` the paired difference to that arm.
        than: Another arm.
        max_gflop: At most so many, everything counted.
        max_flop_share: At most this fraction of the FLOPs of ``flops_of``.
        flops_of: Another arm.
        max_second_share: At most this fraction of the processor time of ``than``.
        max_overhead: At most this fraction of FLOPs, and of processor time, is not training.
    """

    arm: str
    at_least: float | None = None
    than: str = ""
    max_gflop: float | None = None
    max_flop_share: float | None = None
    flops_of: str = ""
    max_second_share: float | None = None
    max_overhead: float | None = None

    def row(self, store: Store) -> str:
        """Returns a line of the page: asked, measured, met. Nothing where an arm has no rows."""
        if any(name and not store.of(name) for name in (self.arm, self.than, self.flops_of)):
            return ""
        parts = [*self._score(store), *self._flops(store), *self._seconds(store), *self._overhead(store)]
        asked, measured, met = zip(*parts, strict=True)
        return f"| {self.arm} | {'; '.join(asked)} | {'; '.join(measured)} | {'yes' if all(met) else '**no**'} |"

    def _score(self, store: Store) -> list[tuple[str, str, bool]]:
        if self.at_least is None:
            return []
        scores = {row["seed"]: row["score"] for row in store.of(self.arm)}
        if not self.than:
            mean = statistics.mean(scores.values())
            return [(f"score ≥ {self.at_least:g}", f"{mean:.2f}", mean >= self.at_least)]
        found = paired(scores, {row["seed"]: row["score"] for row in store.of(self.than)})
        if found is None:
            return []
        asked = f'≥ {self.at_least:g} over "{self.than}"' if self.at_least else f'not below "{self.than}"'
        return [(asked, str(found), found.mean >= self.at_least)]

    def _flops(self, store: Store) -> list[tuple[str, str, bool]]:
        spent, found = _mean_flops(store, self.arm), []
        if self.max_gflop is not None:
            found.append((f"≤ {self.max_gflop:g} GFLOP", f"{spent / 1e9:.3g}", spent <= 1e9 * self.max_gflop))
        if self.max_flop_share is not None:
            share, limit = spent / _mean_flops(store, self.flops_of), self.max_flop_share
            asked = f'≤ {100 * limit:g} % of the FLOPs of "{self.flops_of}"'
            found.append((asked, f"{100 * share:.1f} %", share <= limit))
        return found

    def _seconds(self, store: Store) -> list[tuple[str, str, bool]]:
        if self.max_second_share is None:
            return []
        share = _mean_seconds(store, self.arm) / _mean_seconds(store, self.than)
        asked = f'≤ {100 * self.max_second_share:g} % of the time of "{self.than}"'
        return [(asked, f"{100 * share:.0f} %", share <= self.max_second_share)]

    def _overhead(self, store: Store) -> list[tuple[str, str, bool]]:
        limit, rows = self.max_overhead, store.of(self.arm)
        if limit is None:
            return []
        flops = statistics.mean(1 - row["flops"]["training"] / row["total_flops"] for row in rows)
        seconds = statistics.mean(row["seconds"]["growth_cpu"] / row["seconds"]["cpu"] for row in rows)
        return [
            (f"{what} not training ≤ {100 * limit:g} %", f"{100 * share:.1f} %", share <= limit)
            for what, share in (("FLOPs", flops), ("time", seconds))
        ]


def _mean_flops(store: Store, arm: str) -> float:
    return statistics.mean(row["total_flops"] for row in store.of(arm))


def _mean_seconds(store: Store, arm: str) -> float:
    return statistics.mean(row["seconds"]["cpu"] for row in store.of(arm))
