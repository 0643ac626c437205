"""A whole data set in memory: train, validation and test, with what is needed to feed them to a network.

Validation decides (edits, stopping); test is only reported; mean and deviation come from the training split alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroexapt.data.labelled import LabelledImages
from neuroexapt.data.statistics import channel_statistics, content_fingerprint
from neuroexapt.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DataSplits:
    """Three splits of one data set; built by ``load_data`` or, from tensors, by ``make_splits``.

    Attributes:
        name: What to call the data set in a report.
        train: Updates the weights.
        validation: Decides.
        test: Is reported, and decides nothing.
        class_names: The name of each label value, in order.
        mean: float32 [C] on the CPU, of the training split, in units of uint8 / 255.
        std: float32 [C] on the CPU, likewise, never 0.
        fingerprint: Short hexadecimal digest of all three splits and the class names.

    Raises:
        DataError: The splits differ in image shape, or a label has no class name.
    """

    name: str
    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    class_names: tuple[str, ...]
    mean: Tensor
    std: Tensor
    fingerprint: str

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise DataError(f"{self.name}: found {self.num_classes} class, needed at least 2 to tell apart.")
        needed = self.train.images.shape[1:]
        for split, part in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            if part.images.shape[1:] != needed:
                found = list(part.images.shape[1:])
                raise DataError(f"{self.name}: {split}: found images of {found}, needed {list(needed)} as in train.")
            highest = int(part.labels.max())
            if highest >= self.num_classes:
                raise DataError(
                    f"{self.name}: {split}: found label {highest}, needed 0 to {self.num_classes - 1}: "
                    f"there are {self.num_classes} class names. Correct the label, or name all classes."
                )

    @property
    def num_classes(self) -> int:
        """How many different labels there are."""
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """Channels of an image: 1 for grey, 3 for colour."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image, in pixels."""
        return self.train.images.shape[2], self.train.images.shape[3]

    def normalise(self, images: Tensor) -> Tensor:
        """Returns (images / 255 - mean) / std as float32, on the device of ``images``.

        Args:
            images: uint8 [..., C, H, W].

        Raises:
            DataError: The images are not bytes, or have another number of channels.
        """
        if images.dtype != torch.uint8 or images.ndim < 3 or images.shape[-3] != self.in_channels:
            raise DataError(
                f"{self.name}: normalise: found {images.dtype} {list(images.shape)}, "
                f"needed torch.uint8 [..., {self.in_channels}, H, W]. Pass the bytes as loaded."
            )
        mean = self.mean.to(images.device)[:, None, None]
        std = self.std.to(images.device)[:, None, None]
        return (images.to(torch.float32) / 255.0 - mean) / std

    def describe(self) -> str:
        """Returns one line: ``digits: 1,222 train / 216 validation / 359 test, 1x8x8, 10 classes``."""
        height, width = self.image_size
        return (
            f"{self.name}: {len(self.train):,} train / {len(self.validation):,} validation / {len(self.test):,} test, "
            f"{self.in_channels}x{height}x{width}, {self.num_classes} classes"
        )


def make_splits(
    *,
    name: str,
    train: LabelledImages,
    validation: LabelledImages,
    test: LabelledImages,
    class_names: Sequence[str],
) -> DataSplits:
    """Returns the data set made of three splits, with the statistics of ``train`` and the fingerprint of all.

    Raises:
        DataError: The splits differ in image shape, or a label has no class name.
    """
    mean, std = channel_statistics(train.images)
    return DataSplits(
        name=name,
        train=train,
        validation=validation,
        test=test,
        class_names=tuple(class_names),
        mean=mean,
        std=std,
        fingerprint=content_fingerprint((train, validation, test), class_names),
    )
