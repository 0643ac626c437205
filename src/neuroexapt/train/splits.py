"""What the trainer needs of a data set; ``neuroexapt.data.DataSplits`` is one."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Split(Protocol):
    """Images as bytes and their labels."""

    @property
    def images(self) -> Tensor:
        """uint8 [N, C, H, W]."""

    @property
    def labels(self) -> Tensor:
        """int64 [N]."""


class Splits(Protocol):
    """Three splits that share nothing: train updates weights, validation decides, test is read once."""

    @property
    def name(self) -> str:
        """For reports."""

    @property
    def train(self) -> Split:
        """Updates the weights."""

    @property
    def validation(self) -> Split:
        """Decides which edits stay and which model is chosen."""

    @property
    def test(self) -> Split:
        """Is measured once, at the end."""

    @property
    def num_classes(self) -> int:
        """Number of label values."""

    @property
    def fingerprint(self) -> str:
        """Digest of the content."""

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 -> float32 with the statistics of the training split."""
