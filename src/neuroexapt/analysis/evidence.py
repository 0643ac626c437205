"""A measured quantity: never a number alone."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

CONFIDENCE = 0.95  # of every interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """An estimate of something that would be known exactly from unlimited data.

    Attributes:
        value: The estimate.
        spread: Its standard error; infinite where the samples cannot show it.
        low: Lower end of the interval that holds the true value with probability ``CONFIDENCE``.
        high: Its upper end.
        num_samples: Independent samples that it was read from.
        estimator: How it was estimated.
        num_bytes: Memory that the estimate took: what was stored for it and its workspace.
    """

    value: float
    spread: float
    low: float
    high: float
    num_samples: int
    estimator: str
    num_bytes: int

    def __post_init__(self) -> None:
        if math.isnan(self.value) or not self.low <= self.value <= self.high:
            raise ValueError(f"evidence: found {self.low} <= {self.value} <= {self.high}, needed an ordered interval")

    def agrees_with(self, other: Evidence) -> bool:
        """Whether the intervals of two estimates of one quantity overlap."""
        return self.low <= other.high and other.low <= self.high

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON-ready dictionary; infinite numbers become ``None``."""
        return {key: None if isinstance(v, float) and math.isinf(v) else v for key, v in asdict(self).items()}

    @staticmethod
    def from_json(record: dict[str, Any]) -> Evidence:
        """Rebuilds what ``to_json`` returned."""
        infinite = {"spread": math.inf, "low": -math.inf, "high": math.inf}
        values: dict[str, Any] = {key: infinite[key] if v is None else v for key, v in record.items()}
        return Evidence(**values)
