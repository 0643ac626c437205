"""The data of one run as batches: the same seed and epoch give the same batches, whatever happened before."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from neuroexapt.config import GrowConfig
from neuroexapt.errors import DataError
from neuroexapt.morphogenesis import Batches
from neuroexapt.resources import stream
from neuroexapt.train.augmentation import augment
from neuroexapt.train.batches import batch_slices, batches
from neuroexapt.train.order import epoch_order
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
        DataError: A split is empty, or its images are too small to be cropped so far.
    """

    def __init__(self, data: Splits, config: GrowConfig, device: torch.device) -> None:
        for name, split in (("train", data.train), ("validation", data.validation), ("test", data.test)):
            if not len(split.labels):
                raise DataError(f"{data.name}: {name}: found no images, needed at least one. Split the data otherwise.")
        padding, sides = config.augment.crop_padding, data.train.images.shape[2:]
        if padding >= min(sides):
            raise DataError(
                f"augment.crop_padding: found {padding} with images of {list(sides)}, needed less than a side."
            )
        self._data, self._seed, self._device = data, config.seed, device
        self._size, self._augment = config.train.batch_size, config.augment
        count = len(data.train.labels)
        self._epoch_samples = min(config.train.epoch_samples or count, count)
        self._first_turns = torch.randint(2, (count,), generator=stream(config.seed, "flip"))
        self._format = torch.channels_last if config.train.channels_last else torch.contiguous_format
        self._evidence_samples = min(config.morphogenesis.evidence_samples, len(data.train.labels))
        self.num_steps = len(batch_slices(self._epoch_samples, self._size))

    @property
    def probe(self) -> Tensor:
        """A few training images, for verifying edits."""
        return self._prepare(self._data.train.images[:PROBE_SIZE].to(self._device))

    @property
    def evidence(self) -> Batches | None:
        """Epoch to equal batches of training data, or ``None`` where there are too few for two batches of two."""
        return self._evidence if self._evidence_samples >= 4 else None

    def training(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yields the batches of an epoch in its own order, from step ``start`` on; those before it cost nothing."""
        train = self._data.train
        order, visits = epoch_order(self._seed, epoch, len(train.labels), self._epoch_samples)
        parts = batch_slices(len(order), self._size)
        for step in range(start, len(parts)):
            rows = order[parts[step]]
            turns = self._first_turns[rows] + visits[parts[step]]
            images = augment(self._augment, train.images[rows], turns, stream(self._seed, "augment", epoch, step))
            yield self._prepare(images.to(self._device)), train.labels[rows].to(self._device)

    def all_of(self, split: Split) -> Iterator[Batch]:
        """Yields a split in its own order, for evaluation."""
        return batches(split.images, split.labels, EVALUATION_BATCH, self._prepare, self._device)

    def _evidence(self, epoch: int) -> Iterator[Batch]:
        train = self._data.train
        count = min(EVIDENCE_BATCHES, self._evidence_samples // 2)
        size = self._evidence_samples // count
        order = torch.randperm(len(train.labels), generator=stream(self._seed, "evidence", epoch))
        chosen = order[: size * count]
        return batches(train.images, train.labels, size, self._prepare, self._device, chosen)

    def _prepare(self, images: Tensor) -> Tensor:
        return self._data.normalise(images).contiguous(memory_format=self._format)
