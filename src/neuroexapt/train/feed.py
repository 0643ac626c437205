"""The data of one run as batches: the same seed and epoch give the same batches, whatever happened before."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from neuroexapt.config import GrowConfig
from neuroexapt.errors import DataError
from neuroexapt.morphogenesis import Batches
from neuroexapt.resources import stream
from neuroexapt.train.batches import batches, num_batches
from neuroexapt.train.splits import Split, Splits

PROBE_SIZE = 16  # samples that edits are verified on
EVIDENCE_BATCHES = 8
EVALUATION_BATCH = 512

Batch = tuple[Tensor, Tensor]  # images float32 [n, C, H, W], labels int64 [n]


class Feed:
    """Hands out the batches of a run, on its device. Memory: the splits as they came, one batch at a time.

    Args:
        data: Three splits.
        config: Of the run: seed, batch size, evidence samples.
        device: Where batches go.

    Raises:
        DataError: A split is empty.
    """

    def __init__(self, data: Splits, config: GrowConfig, device: torch.device) -> None:
        for name, split in (("train", data.train), ("validation", data.validation), ("test", data.test)):
            if not len(split.labels):
                raise DataError(f"{data.name}: {name}: found no images, needed at least one. Split the data otherwise.")
        self._data, self._seed, self._device = data, config.seed, device
        self._size = config.train.batch_size
        self._evidence_samples = min(config.morphogenesis.evidence_samples, len(data.train.labels))
        self.num_steps = num_batches(len(data.train.labels), self._size)

    @property
    def probe(self) -> Tensor:
        """A few training images, for verifying edits."""
        return self._data.normalise(self._data.train.images[:PROBE_SIZE].to(self._device))

    @property
    def evidence(self) -> Batches | None:
        """Epoch to equal batches of training data, or ``None`` where there are too few for two batches of two."""
        return self._evidence if self._evidence_samples >= 4 else None

    def training(self, epoch: int) -> Iterator[Batch]:
        """Yields all training data in the order of this epoch."""
        return self._batches(self._data.train, self._size, stream(self._seed, "order", epoch))

    def all_of(self, split: Split) -> Iterator[Batch]:
        """Yields a split in its own order, for evaluation."""
        return self._batches(split, EVALUATION_BATCH)

    def _evidence(self, epoch: int) -> Iterator[Batch]:
        train = self._data.train
        count = min(EVIDENCE_BATCHES, self._evidence_samples // 2)
        size = self._evidence_samples // count
        order = torch.randperm(len(train.labels), generator=stream(self._seed, "evidence", epoch))
        chosen = order[: size * count]
        return batches(train.images[chosen], train.labels[chosen], size, self._data.normalise, self._device)

    def _batches(self, split: Split, size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        return batches(split.images, split.labels, size, self._data.normalise, self._device, generator)
