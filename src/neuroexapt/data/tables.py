"""What a source of images has to offer: for each split that it brings, labels at once and pixels on request.

Labels are cheap to read and decide which rows are wanted; only those rows are then decoded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

SplitName = Literal["train", "validation", "test"]

_PREFIXES: tuple[tuple[str, SplitName], ...] = (("train", "train"), ("val", "validation"), ("test", "test"))


class ImageTable(ABC):
    """Rows of labelled images that have not been decoded yet."""

    labels: Tensor  # int64 [N], N >= 1, each an index into the class names

    @abstractmethod
    def read(self, rows: Tensor, *, size: tuple[int, int] | None) -> Tensor:
        """Returns the images of ``rows``.

        Args:
            rows: int64, ascending, at least one.
            size: Height and width that every image must have; None takes those of the first.

        Returns:
            uint8 [len(rows), C, H, W], contiguous; C is 1 where all these images are grey, else 3.

        Raises:
            DataError: An image cannot be decoded or has another size; the message names its row or file.
        """


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageTables:
    """The splits that a source brings; those that it does not bring are cut out of ``train``."""

    name: str
    class_names: tuple[str, ...]
    train: ImageTable
    validation: ImageTable | None = None
    test: ImageTable | None = None


def split_of(name: str) -> SplitName | None:
    """Returns the split that a file or folder is named after (train*, val*, test*), or None."""
    return next((split for prefix, split in _PREFIXES if name.lower().startswith(prefix)), None)
