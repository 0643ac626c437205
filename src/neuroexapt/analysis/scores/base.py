"""What every growth score keeps to: rows of a junction in, one estimate out, FLOPs and bytes known before it runs.

A junction is where new units meet the network through entries that are zero so far. A row is one position of one
sample there: the gradient at the outputs that the new units write into, and what is multiplied with the zero entries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from neuroexapt.analysis.estimators.base import Value
from neuroexapt.analysis.evidence import Evidence
from neuroexapt.errors import BudgetError, InputError, NonFiniteActivationError

View = Literal["reader", "maker"]


@dataclass(frozen=True, slots=True)
class JunctionShape:
    """Sizes of a junction's rows; all that a score's FLOPs and bytes depend on.

    Attributes:
        samples: n, independent samples.
        rows: q, positions of each that are looked at.
        outputs: Columns of the gradient.
        new: Columns of the new units.
        old: Columns that the layer spans already.
        inputs: Columns of what the maker of the new units reads; 0 where it is not known.
        units: New units.
        is_diagonal: Whether column j of the new units writes into output j only.
    """

    samples: int
    rows: int
    outputs: int
    new: int
    old: int = 0
    inputs: int = 0
    units: int = 1
    is_diagonal: bool = False

    @property
    def total(self) -> int:
        """Rows of all samples."""
        return self.samples * self.rows

    @property
    def row_bytes(self) -> int:
        """Of the rows, float32."""
        return 4 * self.total * (self.outputs + self.new + self.old + self.inputs)


@dataclass(frozen=True, slots=True, eq=False)
class Junction:
    """What was seen at one junction.

    Attributes:
        gradients: ``[n, q, outputs]``, of each sample's own loss (n times that of the mean).
        new: ``[n, q, new]``.
        old: ``[n, q, old]``.
        inputs: ``[n, q, inputs]``, or ``None``.
        units: New units.
        num_positions: That each sample has there; q of them, drawn at random, are rows.
        is_diagonal: Whether column j of ``new`` writes into output j only.
        view: ``reader``: a row is a position of the outputs, and a reader's taps are columns of ``new`` and ``old``.
            ``maker``: a row is a position of the units, and the taps are columns of ``gradients``.
    """

    gradients: Tensor
    new: Tensor
    old: Tensor
    inputs: Tensor | None = None
    units: int = 1
    num_positions: int = 1
    is_diagonal: bool = False
    view: View = "reader"

    @property
    def shape(self) -> JunctionShape:
        """The sizes."""
        return JunctionShape(
            samples=self.gradients.shape[0],
            rows=self.gradients.shape[1],
            outputs=self.gradients.shape[2],
            new=self.new.shape[2],
            old=self.old.shape[2],
            inputs=0 if self.inputs is None else self.inputs.shape[2],
            units=self.units,
            is_diagonal=self.is_diagonal,
        )

    @property
    def weight(self) -> float:
        """Positions that one row stands for."""
        return self.num_positions / max(self.gradients.shape[1], 1)


class Score(ABC):
    """Says what new units would gain, from one junction.

    A new one is a file in this folder with a subclass, and a line in ``registry.py``. It draws no random numbers.
    Noise, gradients that have nothing to do with what the new units give, scores 0 within its interval.

    Attributes:
        name: In configurations, events and tables.
        view: Which rows it needs; where reader and maker agree position by position they differ in nothing.
        needs_maker: Whether it needs ``inputs``.
        least_samples: That it needs.
    """

    name: ClassVar[str]
    view: ClassVar[View]
    needs_maker: ClassVar[bool] = False
    least_samples: ClassVar[int] = 3  # fewer cannot show their spread

    @abstractmethod
    def flops(self, shape: JunctionShape) -> int:
        """Returns the most that ``estimate`` takes, a multiply-add as two, eigenvectors of size k as 9 k^3."""

    @abstractmethod
    def workspace_bytes(self, shape: JunctionShape) -> int:
        """Returns the most that ``estimate`` holds at one time, besides the rows."""

    @abstractmethod
    def estimate(self, junction: Junction) -> Value:
        """Returns the estimate with its spread and interval."""

    @final
    def refusal(self, shape: JunctionShape) -> str:
        """Returns why the score is not defined for such a junction, or ``""``."""
        if shape.samples < self.least_samples:
            return f"found {shape.samples} samples, needed at least {self.least_samples}"
        if self.needs_maker and (not shape.inputs or shape.is_diagonal):
            return "no layer makes its new units that its reader gets position by position"
        return ""

    @final
    def needed_bytes(self, shape: JunctionShape) -> int:
        """Of rows and workspace together."""
        return shape.row_bytes + self.workspace_bytes(shape)

    @final
    def measure(self, place: str, junction: Junction, max_bytes: int) -> Evidence:
        """Scores a junction within a budget.

        Args:
            place: For messages.
            junction: What was seen.
            max_bytes: For rows and workspace together.

        Raises:
            InputError: The score is not defined for it.
            BudgetError: It does not fit; nothing was allocated.
            NonFiniteActivationError: An activation or gradient is NaN or infinite.
        """
        shape = junction.shape
        if reason := self.refusal(shape):
            raise InputError(f"{place}: {self.name} is not defined here: {reason}.")
        needed = self.needed_bytes(shape)
        if needed > max_bytes:
            raise BudgetError(
                f"{place}: {self.name} takes {needed} bytes, allowed are {max_bytes}. Use fewer samples or more bytes."
            )
        check_finite(place, junction)
        with torch.no_grad(), torch.autocast(junction.gradients.device.type, enabled=False):
            found = self.estimate(junction)
        return Evidence(
            value=found.value,
            spread=found.spread,
            low=found.low,
            high=found.high,
            num_samples=shape.samples,
            estimator=self.name,
            num_bytes=needed,
        )


def check_finite(place: str, junction: Junction) -> None:
    """Checks all rows.

    Raises:
        NonFiniteActivationError: One is NaN or infinite; says what of which place.
    """
    named = {"gradient": junction.gradients, "new unit": junction.new, "activation": junction.old}
    if junction.inputs is not None:
        named["input"] = junction.inputs
    for name, tensor in named.items():
        if not bool(torch.isfinite(tensor).all()):
            raise NonFiniteActivationError(
                f"{place}: found a NaN or infinite {name}, needed finite numbers. Lower the learning rate, or look for "
                "bad values in the data."
            )


def sum_of(parts: Sequence[Evidence]) -> Evidence:
    """Adds the evidence of several junctions of one edit; read from the same samples, so spreads add, not squares."""
    return Evidence(
        value=sum(p.value for p in parts),
        spread=sum(p.spread for p in parts),
        low=sum(p.low for p in parts),
        high=sum(p.high for p in parts),
        num_samples=min(p.num_samples for p in parts),
        estimator=parts[0].estimator,
        num_bytes=sum(p.num_bytes for p in parts),
    )
