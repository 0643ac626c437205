"""From what a source brings to the three splits: cut what is missing, apply the limit, decode what is left.

Every cut is stratified and seeded. The order is fixed: first test, then the limit, then validation; so the test
split is the same whatever the limit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuroexapt.config import DataConfig
from neuroexapt.data.labelled import LabelledImages
from neuroexapt.data.splits import DataSplits, make_splits
from neuroexapt.data.stratify import class_counts, stratified_cut
from neuroexapt.data.tables import ImageTable, ImageTables
from neuroexapt.errors import DataError

Part = tuple[ImageTable, Tensor]  # a table and the rows of it that belong to a split


def partition(tables: ImageTables, config: DataConfig, *, seed: int) -> DataSplits:
    """Returns the three splits, decoded.

    Raises:
        DataError: There are fewer than two classes, a class is too small, or an image is unusable.
    """
    if len(tables.class_names) < 2:
        raise DataError(
            f"{tables.name}: found {len(tables.class_names)} class ({', '.join(tables.class_names)}), needed at "
            "least 2. Check the labels, or the folder: each class has one sub-folder."
        )
    train, validation, test = _choose(tables, config, torch.Generator().manual_seed(seed))
    first = train[0].read(train[1], size=None)
    size = (first.shape[2], first.shape[3])
    images = [first, *(table.read(rows, size=size) for table, rows in (validation, test))]
    channels = max(part.shape[1] for part in images)
    splits = [
        LabelledImages(images=_with_channels(pixels, channels), labels=table.labels[rows])
        for pixels, (table, rows) in zip(images, (train, validation, test), strict=True)
    ]
    return make_splits(
        name=tables.name, train=splits[0], validation=splits[1], test=splits[2], class_names=tables.class_names
    )


def _choose(tables: ImageTables, config: DataConfig, generator: torch.Generator) -> tuple[Part, Part, Part]:
    """Decides which rows of which table are train, validation and test."""
    pool = tables.train
    rows = torch.arange(len(pool.labels))
    needed = 1 if tables.validation else 2  # images of a class that train and validation must find in the pool
    if tables.test is None:
        size = round(len(rows) * config.test_fraction)
        taken, rows = _cut(tables, (pool, rows), size, generator, least=1, keep=needed)
        test: Part = (pool, taken)
    else:
        test = _whole(tables.test)
        class_counts(pool.labels, needed, class_names=tables.class_names, what=tables.name)
    train = (pool, rows)
    if tables.validation is not None:
        return (*_limited(tables, train, _whole(tables.validation), config.limit, generator), test)
    if config.limit is not None and config.limit < len(rows):
        _check_limit(tables, config.limit)
        rows, _ = _cut(tables, train, config.limit, generator, least=2, keep=0)
    size = round(len(rows) * config.validation_fraction)
    taken, rows = _cut(tables, (pool, rows), size, generator, least=1, keep=1)
    return (pool, rows), (pool, taken), test


def _limited(
    tables: ImageTables, train: Part, validation: Part, limit: int | None, generator: torch.Generator
) -> tuple[Part, Part]:
    """Shrinks train and validation, where the source brings both, to ``limit`` images in the same proportion."""
    total = len(train[1]) + len(validation[1])
    if limit is None or limit >= total:
        return train, validation
    _check_limit(tables, limit)
    share = round(limit * len(validation[1]) / total)
    share = min(max(share, 1), limit - len(tables.class_names))
    kept, _ = _cut(tables, validation, share, generator, least=0, keep=0)
    rows, _ = _cut(tables, train, limit - share, generator, least=1, keep=0)
    return (train[0], rows), (validation[0], kept)


def _cut(
    tables: ImageTables, part: Part, size: int, generator: torch.Generator, *, least: int, keep: int
) -> tuple[Tensor, Tensor]:
    """Returns the rows cut out of a part and those that stay (see ``stratified_cut``)."""
    table, among = part
    taken, rest = stratified_cut(
        table.labels[among],
        size,
        class_names=tables.class_names,
        generator=generator,
        least=least,
        keep=keep,
        what=tables.name,
    )
    return among[taken], among[rest]


def _whole(table: ImageTable) -> Part:
    return table, torch.arange(len(table.labels))


def _check_limit(tables: ImageTables, limit: int) -> None:
    least = 2 * len(tables.class_names)
    if limit < least:
        raise DataError(
            f"{tables.name}: found data.limit = {limit}, needed at least {least}: one image for train and one for "
            f"validation of each of {len(tables.class_names)} classes. Raise data.limit."
        )


def _with_channels(images: Tensor, channels: int) -> Tensor:
    """Returns grey images as R = G = B where another split has colour."""
    return images if images.shape[1] == channels else images.expand(-1, channels, -1, -1).contiguous()
