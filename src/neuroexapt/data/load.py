"""``load_data``: from the name or path in the configuration to a data set in memory."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from neuroexapt.config import DataConfig
from neuroexapt.data.digits import digits_tables
from neuroexapt.data.folders import folder_tables
from neuroexapt.data.parquet import parquet_files, parquet_tables
from neuroexapt.data.partition import partition
from neuroexapt.data.splits import DataSplits
from neuroexapt.data.tables import ImageTables
from neuroexapt.errors import DataError

NAMED_SOURCES: dict[str, Callable[[], ImageTables]] = {
    "digits": digits_tables,
}


def load_data(config: DataConfig, *, seed: int) -> DataSplits:
    """Loads, checks and splits the images of ``config.source``.

    A name in ``NAMED_SOURCES`` comes before a path of the same name (write ``./digits`` for the folder). Splits that
    the source does not bring are cut out of its training images, stratified by class, and the same for the same seed.

    Raises:
        DataError: The source is unknown, missing or unusable; the message names the row or file. Nothing is written.
    """
    return partition(_open(config.source), config, seed=seed)


def _open(source: str) -> ImageTables:
    if source in NAMED_SOURCES:
        return NAMED_SOURCES[source]()
    path = _path(source)
    try:
        if source.strip():
            if path.is_file() or (path.is_dir() and parquet_files(path)):
                return parquet_tables(path)
            if path.is_dir():
                return folder_tables(path)
        hint = _suggestion(source, path)
    except OSError as error:
        raise DataError(
            f"data.source: found {source!r}, which cannot be read ({error}), needed a readable file or folder. "
            "Check its name and permissions."
        ) from error
    raise DataError(
        f"data.source: found {source!r}, which is no named data set ({', '.join(NAMED_SOURCES)}) and no existing path."
        f"{hint} Needed a name, a Parquet file or a folder of them, or a folder with one sub-folder of images for each "
        "class."
    )


def _path(source: str) -> Path:
    try:
        if "\0" in source:
            raise ValueError("it holds a NUL character")
        return Path(source).expanduser()
    except (RuntimeError, ValueError) as error:  # RuntimeError: no such home
        raise DataError(f"data.source: found {source!r}, needed a name or a path ({error}). Correct it.") from error


def _suggestion(source: str, path: Path) -> str:
    close = difflib.get_close_matches(source, NAMED_SOURCES, n=1)
    if close:
        return f" Did you mean {close[0]!r}?"
    if not path.parent.is_dir():
        return f" The folder {str(path.parent)!r} does not exist either."
    near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return f" Did you mean {str(path.parent / near[0])!r}?" if near else ""
