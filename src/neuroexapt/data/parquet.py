"""A Parquet file, or a folder of them in the Hugging Face layout (``train-00000-of-00001.parquet``, ``test-...``).

Labels are read first, whole; images only where they are wanted, in batches of rows of a few megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuroexapt.data.decode import decode_images
from neuroexapt.data.parquet_columns import Columns, find_columns
from neuroexapt.data.parquet_labels import RawLabels, class_names_of, label_indices, read_labels
from neuroexapt.data.tables import ImageTable, ImageTables, SplitName, split_of
from neuroexapt.errors import DataError

_BATCH_BYTES = 8 << 20  # encoded bytes held at a time
_MAX_BATCH_ROWS = 1024


class ParquetTable(ImageTable):
    """Rows of one split, in the order of its files; memory: its labels, and one batch while reading."""

    def __init__(self, files: list[RawLabels], columns: Columns, labels: Tensor) -> None:
        self.labels = labels
        self._files = files
        self._columns = columns

    def read(self, rows: Tensor, *, size: tuple[int, int] | None) -> Tensor:
        """Returns the images of ``rows`` (see ``ImageTable.read``)."""
        return decode_images(self._encoded(rows.numpy()), len(rows), size=size)

    def _encoded(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[tuple[str, bytes]]:
        start = 0
        for file in self._files:
            first, last = np.searchsorted(rows, [start, start + len(file.values)])
            yield from _encoded_rows(file.path, self._columns.image, rows[first:last] - start)
            start += len(file.values)


def parquet_files(folder: Path) -> list[Path]:
    """Returns the Parquet files of a folder, or else those one level below it (``data/``, ``train/``, ``test/``)."""
    for pattern in ("*.parquet", "*/*.parquet"):
        files = sorted(file for file in folder.glob(pattern) if not file.name.startswith(".") and file.is_file())
        if files:
            return files
    return []


def parquet_tables(source: Path) -> ImageTables:
    """Returns the tables of a Parquet file or folder.

    Raises:
        DataError: pyarrow is missing, a file is not Parquet, columns or labels are unusable, or splits are unclear.
    """
    groups = _group_by_split(source)
    columns = _common_columns([file for files in groups.values() for file in files])
    raw: dict[SplitName, list[RawLabels]] = {}
    for split, files in groups.items():
        raw[split] = []
        for file in files:
            with open_parquet(file) as parquet:
                raw[split].append(read_labels(file, parquet, columns))
        if not any(len(part.values) for part in raw[split]):
            raise DataError(f"{files[0]}: found no rows, needed images for the {split} split. Remove it or fill it.")
    class_names = class_names_of([part for parts in raw.values() for part in parts], columns)
    tables = {
        split: ParquetTable(parts, columns, torch.from_numpy(label_indices(parts, columns, class_names)))
        for split, parts in raw.items()
    }
    path = source.resolve()
    return ImageTables(
        name=path.name if source.is_dir() else path.stem,
        class_names=class_names,
        train=tables["train"],
        validation=tables.get("validation"),
        test=tables.get("test"),
    )


@contextmanager
def open_parquet(file: Path) -> Iterator[Any]:
    """Opens a Parquet file; whatever pyarrow raises inside the block becomes a ``DataError`` with the file's name."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(
            f"{file}: found no pyarrow, needed it to read Parquet. Install it with: pip install 'neuroexapt[data]'"
        ) from error
    try:
        with pq.ParquetFile(file) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file}: found a file that cannot be read as Parquet, needed a whole Parquet file, or a folder. "
            f"pyarrow says: {error}"
        ) from error


def _group_by_split(source: Path) -> dict[SplitName, list[Path]]:
    if source.is_file():
        return {"train": [source]}
    files = parquet_files(source)
    named = {
        file: split_of(file.name) or (split_of(file.parent.name) if file.parent != source else None) for file in files
    }
    groups: dict[SplitName, list[Path]] = {}
    for file, split in named.items():
        if split is not None:
            groups.setdefault(split, []).append(file)
    if len(groups) < 2 and (not groups or None not in named.values()):
        return {"train": files}  # one split, whatever its name, is all there is to split
    stranger = next((file for file, split in named.items() if split is None), None)
    if stranger is not None:
        raise DataError(
            f"{stranger}: found a name that says no split, beside files that do; needed train*, val* or test*. "
            "Rename it, or move it away."
        )
    if "train" not in groups:
        raise DataError(f"{source}: found only {' and '.join(groups)} files, needed train*.parquet beside them.")
    return groups


def _common_columns(files: list[Path]) -> Columns:
    """Returns the columns that all files share, with the class names of those that declare them."""
    found: list[Columns] = []
    for file in files:
        with open_parquet(file) as parquet:
            found.append(find_columns(str(file), parquet.schema_arrow))
    names = next((columns.class_names for columns in found if columns.class_names), None)
    common = replace(found[0], class_names=names)
    for file, columns in zip(files, found, strict=True):
        if replace(columns, class_names=columns.class_names or names) != common:
            raise DataError(
                f"{file}: found image {columns.image!r}, label {columns.label!r}, classes {columns.class_names}, "
                f"needed {common.image!r}, {common.label!r}, {names} as in {files[0]}. Keep one layout in one folder."
            )
    return common


def _encoded_rows(file: Path, leaf: str, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[tuple[str, bytes]]:
    """Yields name and bytes of the wanted rows of one file; row groups without any are not read."""
    if not len(rows):
        return
    with open_parquet(file) as parquet:
        sizes = [parquet.metadata.row_group(index).num_rows for index in range(parquet.num_row_groups)]
        ends = np.cumsum(sizes)
        batch_rows = _batch_rows(parquet)
        for group, (end, size) in enumerate(zip(ends, sizes, strict=True)):
            first, last = np.searchsorted(rows, [end - size, end])
            if first == last:
                continue
            wanted, offset = rows[first:last], int(end - size)
            for batch in parquet.iter_batches(batch_size=batch_rows, row_groups=[group], columns=[leaf]):
                column = batch.column(0)
                values = column.field("bytes") if column.type.num_fields else column
                low, high = np.searchsorted(wanted, [offset, offset + len(values)])
                for row in wanted[low:high].tolist():
                    yield _checked(file, row, values[row - offset].as_py())
                offset += len(values)


def _checked(file: Path, row: int, content: bytes | None) -> tuple[str, bytes]:
    where = f"{file}: row {row}"
    if not content:
        raise DataError(
            f"{where}: found {'no bytes (null)' if content is None else 'zero bytes'}, needed an encoded image. "
            "Store the images inside the file, not as paths, and drop empty rows."
        )
    return where, content


def _batch_rows(parquet: Any) -> int:
    """Returns how many rows make about ``_BATCH_BYTES``."""
    metadata = parquet.metadata
    total = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    return int(min(max(_BATCH_BYTES * metadata.num_rows // max(total, 1), 1), _MAX_BATCH_ROWS))
