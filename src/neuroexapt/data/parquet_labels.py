"""The label column of Parquet files: read whole, checked row by row, and turned into indices of class names.

Integers with declared names are indices as they are. Integers without names, and strings, are numbered in ascending
order of the values that occur in any split; the values then are the names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroexapt.data.parquet_columns import Columns
from neuroexapt.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RawLabels:
    """The labels of one file, as they stand in it."""

    path: Path
    values: NDArray[Any]  # [rows] of int64 or str


def read_labels(file: Path, parquet: Any, columns: Columns) -> RawLabels:
    """Returns the labels of an open ``pyarrow.parquet.ParquetFile``.

    Raises:
        DataError: A label is null, negative or beyond the declared names; the message names its row, counted from 0.
    """
    import pyarrow as pa  # optional; the file is open, so it is there

    column = parquet.read(columns=[columns.label]).column(0)
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DataError(f"{file}: row {row}: found no label (null), needed one. Fill it in, or drop the row.")
    if columns.text_labels:
        return RawLabels(path=file, values=column.cast(pa.string()).to_numpy().astype(np.str_))
    values = column.cast(pa.int64()).to_numpy()
    upper = len(columns.class_names) if columns.class_names else None
    bad = np.flatnonzero((values < 0) | (values >= upper if upper is not None else False))
    if len(bad):
        needed = f"0 to {upper - 1}, as {upper} class names are declared" if upper is not None else "0 or more"
        raise DataError(
            f"{file}: row {bad[0]}: found label {values[bad[0]]}, needed {needed}. "
            "Correct it, or drop the row (-1 often means: not labelled)."
        )
    return RawLabels(path=file, values=values)


def class_names_of(parts: list[RawLabels], columns: Columns) -> tuple[str, ...]:
    """Returns the declared class names, or the label values that occur, in ascending order."""
    if columns.class_names is not None:
        return columns.class_names
    return tuple(str(value) for value in np.unique(np.concatenate([np.unique(part.values) for part in parts])))


def label_indices(parts: list[RawLabels], columns: Columns, class_names: tuple[str, ...]) -> NDArray[np.int64]:
    """Returns the class index of every row of a split, int64 [rows]."""
    values = np.concatenate([part.values for part in parts])
    if columns.class_names is not None:
        return values.astype(np.int64)
    known = np.asarray(class_names) if columns.text_labels else np.asarray([int(name) for name in class_names])
    return np.searchsorted(known, values).astype(np.int64)
