"""``digits``: 1,797 handwritten digits of 8 x 8 grey pixels that come with scikit-learn; nothing is downloaded.

E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuroexapt.data.tables import ImageTable, ImageTables

_LEVEL = 15  # values 0..16 become 0..240: an integer factor, so that every ratio of two pixels stays exact


class _DigitsTable(ImageTable):
    """All digits, decoded; there are only 115,008 bytes of them."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.labels = labels
        self._images = images

    def read(self, rows: Tensor, *, size: tuple[int, int] | None) -> Tensor:
        """Returns the digits of ``rows``, uint8 [len(rows), 1, 8, 8]; they have one size, whatever ``size`` says."""
        return self._images[rows]


def digits_tables() -> ImageTables:
    """Returns the digits as one table, to be split by fractions."""
    from sklearn.datasets import load_digits  # half a second that only those pay who ask for digits

    digits = load_digits()
    images = (torch.from_numpy(digits.images) * _LEVEL).to(torch.uint8)[:, None].contiguous()
    labels = torch.from_numpy(digits.target).to(torch.int64)
    return ImageTables(
        name="digits",
        class_names=tuple(str(name) for name in digits.target_names),
        train=_DigitsTable(images, labels),
    )
