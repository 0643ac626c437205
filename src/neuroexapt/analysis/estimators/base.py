"""What every estimator keeps to: what it reads, what it gives, and the bytes it needs, known before it runs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from neuroexapt.analysis.evidence import Evidence
from neuroexapt.analysis.watching import LayerSample
from neuroexapt.analysis.watching.defaults import plain_defaults
from neuroexapt.errors import BudgetError, InputError

ROUNDING = 1e-12  # relative: a few hundred last places of float64


@dataclass(frozen=True, slots=True)
class Value:
    """One estimate with its standard error and its 95 % interval."""

    value: float
    spread: float
    low: float
    high: float


class Estimator(ABC):
    """Estimates one or more quantities of one layer from its rows.

    A new one is a file in this folder with a subclass, and a line in ``registry.py``. It must not draw random numbers
    but from a generator of its own with a fixed seed, must not write to the sample, and must say beforehand what it
    allocates. Its intervals are to hold the values that unlimited data of the same kind would give.

    Attributes:
        name: In evidence, tables and messages.
        views: Tensors of ``LayerSample`` that it reads.
        values: Each value that it gives, with its meaning, range and what it is where there is nothing to find.
    """

    name: ClassVar[str]
    views: ClassVar[frozenset[str]]
    values: ClassVar[Mapping[str, str]]

    @abstractmethod
    def workspace_bytes(self, sample: LayerSample) -> int:
        """Returns the most that ``estimate`` holds at one time, besides the sample."""

    @abstractmethod
    def estimate(self, sample: LayerSample) -> Mapping[str, Value]:
        """Returns its values; one that the sample cannot show is left away."""

    @final
    def measure(self, layer: str, sample: LayerSample, max_bytes: int) -> dict[str, Evidence]:
        """Estimates within a budget.

        Args:
            layer: Path, for messages.
            sample: Its rows.
            max_bytes: For the rows and the workspace together.

        Raises:
            InputError: The sample lacks a view.
            BudgetError: It does not fit; nothing was allocated.
        """
        if missing := sorted(view for view in self.views if not sample.has(view)):
            raise InputError(f"{layer}: {self.name}: found no {missing[0]} of this layer, needed them.")
        needed = sample.num_bytes + self.workspace_bytes(sample)
        if needed > max_bytes:
            raise BudgetError(
                f"{layer}: {self.name} takes {needed} bytes, allowed are {max_bytes}. Raise max_bytes_per_layer, or "
                "lower num_samples."
            )
        with torch.no_grad(), torch.autocast("cpu", enabled=False), plain_defaults():
            found = self.estimate(sample)
        return {
            name: Evidence(
                value=v.value,
                spread=v.spread,
                low=_end(v.low, v.value),
                high=_end(v.high, v.value),
                num_samples=len(sample),
                estimator=self.name,
                num_bytes=needed,
            )
            for name, v in found.items()
            if not math.isnan(v.value)
        }


def _end(end: float, value: float) -> float:
    """Returns the end of an interval; the value itself where rounding alone could put it on the wrong side."""
    return value if math.isclose(end, value, rel_tol=ROUNDING) else end
