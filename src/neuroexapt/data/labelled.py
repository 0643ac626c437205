"""Images with their labels, kept as bytes: one quarter of the memory of float32, and exact."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuroexapt.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelledImages:
    """One split of a data set, in memory.

    Attributes:
        images: uint8 [N, C, H, W], contiguous, N >= 1.
        labels: int64 [N], on the device of ``images``, every one >= 0.

    Raises:
        DataError: A tensor has another dtype, shape or device, or a label is negative.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4 or not images.is_contiguous():
            layout = "" if images.is_contiguous() else ", not contiguous"
            raise DataError(
                f"images: found {images.dtype} {list(images.shape)}{layout}, needed contiguous torch.uint8 "
                "[N, C, H, W]. Convert with images.to(torch.uint8).contiguous()."
            )
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1] or labels.device != images.device:
            raise DataError(
                f"labels: found {labels.dtype} {list(labels.shape)} on {labels.device}, "
                f"needed torch.int64 [{images.shape[0]}] on {images.device}: one label for each image."
            )
        if images.numel() == 0:
            raise DataError(f"images: found {list(images.shape)}, needed at least one image with at least one pixel.")
        if int(labels.min()) < 0:
            row = int((labels < 0).nonzero()[0])
            raise DataError(f"labels: row {row}: found {int(labels[row])}, needed 0 or more. Drop unlabelled images.")

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes held by images and labels."""
        return self.images.nbytes + self.labels.nbytes
