"""What a run has cost, by purpose: FLOPs and wall time. Memory: two numbers for each purpose."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

PURPOSES = ("training", "discarded", "proposing", "needs", "surgery", "validation")


def _zeros() -> dict[str, Any]:
    return dict.fromkeys(PURPOSES, 0)


@dataclass
class Ledger:
    """FLOPs and seconds, by purpose.

    Attributes:
        flops: ``training``: steps on the line that counts; ``discarded``: the arm of a trial that was given up;
            ``proposing``: growth scores; ``needs``: evidence of layers; ``surgery``: verification of edits;
            ``validation``: looks at the validation split that decided something.
        seconds: Wall time, likewise; ``training`` holds whatever the loop does between two calls of the engine.
    """

    flops: dict[str, int] = field(default_factory=_zeros)
    seconds: dict[str, float] = field(default_factory=_zeros)
    _since: float = field(default_factory=time.perf_counter, repr=False)

    def spend(self, purpose: str, flops: int = 0) -> float:
        """Books FLOPs and the time since the last booking; returns that time in seconds."""
        now = time.perf_counter()
        elapsed, self._since = now - self._since, now
        self.flops[purpose] += flops
        self.seconds[purpose] += elapsed
        return elapsed

    def discard(self, flops: int, seconds: float) -> None:
        """Books what an arm took as thrown away."""
        self.flops["training"] -= flops
        self.flops["discarded"] += flops
        self.seconds["training"] -= seconds
        self.seconds["discarded"] += seconds

    @property
    def overhead_flops(self) -> int:
        """FLOPs of everything but training."""
        return sum(self.flops.values()) - self.flops["training"]

    @property
    def unseen_flops(self) -> int:
        """FLOPs that the training loop does not see: of everything but its own steps."""
        return self.overhead_flops - self.flops["discarded"]

    @property
    def total_seconds(self) -> float:
        """Wall time so far, over all processes of a resumed run."""
        return sum(self.seconds.values())

    def shares(self) -> tuple[float, float]:
        """Returns the overhead as a fraction of everything: of the FLOPs, of the seconds."""
        flops, seconds = sum(self.flops.values()), self.total_seconds
        return self.overhead_flops / max(flops, 1), 1 - self.seconds["training"] / max(seconds, 1e-9)

    def to_json(self) -> dict[str, Any]:
        """Returns everything as a JSON-ready dictionary."""
        return {"flops": dict(self.flops), "seconds": dict(self.seconds)}

    def load(self, record: dict[str, Any]) -> None:
        """Takes over what ``to_json`` returned; the clock starts now."""
        self.flops, self.seconds = _zeros() | record["flops"], _zeros() | record["seconds"]
        self._since = time.perf_counter()
