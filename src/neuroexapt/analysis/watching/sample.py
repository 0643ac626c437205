"""What is kept of one layer: a bounded number of rows, one for each sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TypeVar, cast

import torch
from torch import Tensor

from neuroexapt.errors import BudgetError

POOLED = 64  # projections of the pooled features
INPUTS = 128  # projections of a layer's inputs
GRADIENTS = 64  # projections of the gradient at a layer's outputs
WEIGHT_SIDE = 16  # the gradient of a weight is projected on both sides: 16 x 16
MIN_SAMPLES = 16

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class LayerSample:
    """One layer as it was seen; row i of every tensor belongs to sample i, and rows are independent of each other.

    A layer's *units* are its output channels. They are watched where the next layer reads them, behind norm and
    activation; the layer's *own outputs* are before these. Gradients are those of a sample's own loss. Wide rows are
    kept as sparse random projections (count sketches), which keep inner products on average.

    Attributes:
        features: float32 ``[n, d]``: the units at one random position of each sample.
        pooled: float32 ``[n, <=64]``: the units averaged over a 2 x 2 grid of positions, projected.
        relevance: float32 ``[n, d]``: activation times gradient, summed over positions.
        inputs: float32 ``[n, <=128]``: what a row of the weight is multiplied with at one random output position.
        gradients: float32 ``[n, <=64]``: gradient at the layer's own outputs, at that position; those of the first
            group, as the inputs are, where a convolution has several.
        weight_gradients: float32 ``[n, <=256]``: gradient of the weight, projected on both sides; the bias is left out.
        targets: int64 ``[n]``: the class, where every sample has one.
        low: float32 ``[d]``: smallest activation of each unit at all positions.
        high: float32 ``[d]``: largest.
        num_inputs: Columns of the weight; more than ``inputs`` has where these are projections.
        num_outputs: Rows of the weight.
    """

    features: Tensor
    low: Tensor
    high: Tensor
    pooled: Tensor | None = None
    relevance: Tensor | None = None
    inputs: Tensor | None = None
    gradients: Tensor | None = None
    weight_gradients: Tensor | None = None
    targets: Tensor | None = None
    num_inputs: int = 0
    num_outputs: int = 0
    _found: dict[str, object] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.features)

    def has(self, name: str) -> bool:
        """Whether a view of the layer was recorded."""
        return getattr(self, name) is not None

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Returns what several estimators need of these rows, made by the first that asks.

        It is held as long as the sample is, and counts in nobody's bytes: a few numbers of the whole layer, or a few
        for each row; never anything as wide as the units. ``dataclasses.replace`` gives a sample that holds none.

        Args:
            name: The same wherever ``make`` gives the same.
            make: Reads this sample and nothing else.
        """
        if name not in self._found:
            self._found[name] = make()
        return cast("T", self._found[name])

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        held = [getattr(self, f.name) for f in fields(self)]
        return sum(t.numel() * t.element_size() for t in held if isinstance(t, Tensor))


@dataclass(frozen=True, slots=True)
class Views:
    """Widths of the rows that will be kept of a layer; 0 where a view is not wanted or not to be had."""

    features: int
    pooled: int = 0
    relevance: int = 0
    inputs: int = 0
    gradients: int = 0
    weight_gradients: int = 0

    @property
    def bytes_per_sample(self) -> int:
        """Bytes of one row of every view, and its target."""
        return 8 + 4 * sum(int(getattr(self, f.name)) for f in fields(self))

    def capacity(self, layer: str, num_samples: int, max_bytes: int) -> int:
        """Returns how many samples half of the budget holds; the other half is the estimators'.

        Raises:
            BudgetError: Fewer than 16, which show nothing.
        """
        count = min(num_samples, (max_bytes // 2 - 8 * self.features) // self.bytes_per_sample)
        if count < min(num_samples, MIN_SAMPLES):
            needed = 2 * (MIN_SAMPLES * self.bytes_per_sample + 8 * self.features)
            raise BudgetError(
                f"{layer}: {MIN_SAMPLES} samples of {self.features} units take {needed} bytes with what estimators "
                f"need, allowed are {max_bytes}. Raise evidence.max_bytes_per_layer."
            )
        return count


class Rows:
    """The store that fills up: allocated once, ``capacity x bytes_per_sample``, whatever the number of batches."""

    def __init__(self, views: Views, capacity: int, num_inputs: int, num_outputs: int, has_targets: bool) -> None:
        self.capacity = capacity
        self.num_inputs, self.num_outputs = num_inputs, num_outputs
        self.views = {
            f.name: torch.zeros(capacity, getattr(views, f.name)) for f in fields(views) if getattr(views, f.name)
        }
        self.low = torch.full((views.features,), math.inf)
        self.high = torch.full((views.features,), -math.inf)
        self.targets = torch.zeros(capacity, dtype=torch.int64) if has_targets else None
        self.lost: dict[str, str] = {}  # view -> why it could not be recorded

    def put(self, name: str, start: int, rows: Tensor) -> None:
        """Writes the rows of some samples, from sample ``start`` on; columns that they lack stay 0."""
        self.views[name][start : start + len(rows), : rows.shape[1]] = rows.detach().to("cpu", torch.float32)

    def put_targets(self, start: int, classes: Tensor) -> None:
        """Writes the classes of as many samples as there is room for."""
        if self.targets is not None and start < self.capacity:
            kept = classes[: self.capacity - start]
            self.targets[start : start + len(kept)] = kept.cpu()

    def widen_range(self, low: Tensor, high: Tensor) -> None:
        """Takes the smallest and largest activation of each unit into account."""
        torch.minimum(self.low, low.detach().to("cpu", torch.float32), out=self.low)
        torch.maximum(self.high, high.detach().to("cpu", torch.float32), out=self.high)

    def sample(self, count: int, without: Sequence[str] = ()) -> LayerSample:
        """Returns the first ``count`` samples; shares their memory."""
        views = {name: rows[:count] for name, rows in self.views.items() if name not in (*self.lost, *without)}
        targets = None if self.targets is None else self.targets[:count]
        return LayerSample(
            **views,
            low=self.low,
            high=self.high,
            targets=targets,
            num_inputs=self.num_inputs,
            num_outputs=self.num_outputs,
        )
