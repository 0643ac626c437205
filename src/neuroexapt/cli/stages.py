"""The stages of a run, as its settings say, and the line that tells of a new one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Stages:
    """Where a run stands: base training, morphogenesis, fine-tuning.

    Attributes:
        num_epochs: Length of the run, where it is known.
        first: Position at which events may begin, in fractions of epochs.
        last: Position after which none begins.
        are_told: Whether there are stages at all; not where no event may be kept.
        name: The latest that was told.
    """

    num_epochs: int | None = None
    first: float = 0.0
    last: float = math.inf
    are_told: bool = False
    name: str = ""

    @staticmethod
    def of(config: Mapping[str, Any]) -> Stages:
        """Reads the settings of a run; what is missing among them is not told."""
        train, growth = config.get("train"), config.get("morphogenesis")
        num_epochs = train.get("epochs") if isinstance(train, Mapping) else None
        stages = Stages(num_epochs if isinstance(num_epochs, int) else None)
        if isinstance(growth, Mapping) and growth.get("max_events"):
            stages.are_told = True
            stages.first = float(growth.get("first_epoch") or 0.0)
            stages.last = math.inf if growth.get("last_epoch") is None else float(growth["last_epoch"])
        return stages

    def tell(self, position: float) -> str:
        """Returns a sentence if the run is in another stage than told last, else ``""``."""
        name = "base training" if position < self.first else "morphogenesis"
        if position > self.last:
            name = "fine-tuning"
        if not self.are_told or name == self.name:
            return ""
        self.name = name
        until = "" if math.isinf(self.last) else f" until epoch {self.last:g}"
        return {
            "base training": f"base training: no edits before epoch {self.first:g}",
            "morphogenesis": f"morphogenesis: edits are tried{until}",
            "fine-tuning": f"fine-tuning: no edits after epoch {self.last:g}",
        }[name]
