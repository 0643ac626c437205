"""A folder with one sub-folder of image files for each class; train/, val/ and test/ above them are optional.

Classes are numbered in the order of their names. Sub-folders of a class belong to it. Hidden files are ignored, other
files that are no images are skipped with a warning in the log.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch
from torch import Tensor

from neuroexapt.data.decode import SUFFIXES, decode_images
from neuroexapt.data.tables import ImageTable, ImageTables, SplitName, split_of
from neuroexapt.errors import DataError

_logger = logging.getLogger(__name__)

_SPLIT_FOLDERS = ("train", "training", "val", "valid", "validation", "test", "testing")


class FolderTable(ImageTable):
    """Image files of one split; memory: one path for each."""

    def __init__(self, files: list[Path], labels: list[int]) -> None:
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self._files = files

    def read(self, rows: Tensor, *, size: tuple[int, int] | None) -> Tensor:
        """Returns the images of ``rows`` (see ``ImageTable.read``)."""
        chosen = [self._files[row] for row in rows.tolist()]
        return decode_images(((str(file), file) for file in chosen), len(chosen), size=size)


def folder_tables(root: Path) -> ImageTables:
    """Returns the tables of an image folder.

    Raises:
        DataError: There is nothing usable, splits are ambiguous, or a split has a class that train does not have.
    """
    roots = _split_roots(root)
    class_names = tuple(folder.name for folder in _sub_folders(roots["train"]))
    if not class_names:
        entries = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
        listing = ", ".join(entries[:5]) + (f" and {len(entries) - 5} more" if len(entries) > 5 else "")
        raise DataError(
            f"{root}: found {listing or 'an empty folder'}, needed Parquet files, or one sub-folder of images "
            f"({', '.join(SUFFIXES)}) for each class, with or without train/, val/ and test/ above."
        )
    tables = {split: _table(split, folder, class_names) for split, folder in roots.items()}
    return ImageTables(
        name=root.resolve().name,
        class_names=class_names,
        train=tables["train"],
        validation=tables.get("validation"),
        test=tables.get("test"),
    )


def _split_roots(root: Path) -> dict[SplitName, Path]:
    """Returns the folder that holds the class folders of each split; a class may itself be called train."""
    folders = _sub_folders(root)
    named = [folder for folder in folders if folder.name.lower() in _SPLIT_FOLDERS and _sub_folders(folder)]
    if not named:
        return {"train": root}
    roots: dict[SplitName, Path] = {}
    for folder in named:
        split = split_of(folder.name) or "train"
        if split in roots:
            raise DataError(f"{root}: found {roots[split].name}/ and {folder.name}/, needed one {split} folder.")
        roots[split] = folder
    strangers = [folder.name for folder in folders if folder not in named]
    if strangers:
        raise DataError(
            f"{root}: found {strangers[0]}/ beside {named[0].name}/, needed either splits or classes on one level. "
            f"Move {strangers[0]}/ away, or into a split."
        )
    if len(roots) == 1:  # one split of any name is all there is to split
        return {"train": named[0]}
    if "train" not in roots:
        raise DataError(f"{root}: found {' and '.join(f.name for f in named)}, needed a train/ folder beside them.")
    return roots


def _table(split: SplitName, root: Path, class_names: tuple[str, ...]) -> FolderTable:
    files: list[Path] = []
    labels: list[int] = []
    for folder in _sub_folders(root):
        if folder.name not in class_names:
            raise DataError(f"{folder}: found a class that train does not have, needed: {', '.join(class_names)}.")
        images = _image_files(folder)
        if not images and split == "train":
            raise DataError(
                f"{folder}: found no image, needed at least one file ending in {', '.join(SUFFIXES)}. "
                "Add images, or remove the folder."
            )
        files += images
        labels += [class_names.index(folder.name)] * len(images)
    if not files:
        raise DataError(f"{root}: found no image, needed some for the {split} split. Add images, or remove the folder.")
    return FolderTable(files, labels)


def _image_files(folder: Path) -> list[Path]:
    """Returns all image files below a class folder, in the order of their paths."""
    found: list[Path] = []
    skipped: list[Path] = []
    for place, _, names in os.walk(folder):
        for name in names:
            if not name.startswith("."):
                file = Path(place, name)
                (found if file.suffix.lower() in SUFFIXES else skipped).append(file)
    if skipped:
        _logger.warning("%s: skipped %d files that are no images, such as %s", folder, len(skipped), min(skipped).name)
    return sorted(found)


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
