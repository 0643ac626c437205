"""Where a picture goes, and that nothing but an earlier picture is written over."""

from __future__ import annotations

from pathlib import Path

from neuroexapt.errors import InputError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def run_folder_of(target: Path) -> Path:
    """Returns the folder of the run that a target belongs to, or else the current one."""
    if (target / "checkpoints").is_dir():
        return target
    return target.parent.parent if target.is_dir() and target.parent.name == "checkpoints" else Path()


def check_place(place: Path) -> bool:
    """Says whether a picture is there already.

    Raises:
        InputError: The place is not one for a picture.
    """
    if place.suffix.lower() != ".png":
        raise InputError(f"{place}: found the ending {place.suffix!r}, needed .png. Give another --out.")
    if not place.parent.is_dir():
        raise InputError(f"{place}: found no folder {place.parent}, needed one. Make it, or give another --out.")
    if place.is_dir():
        raise InputError(f"{place}: found a folder, needed the name of a file. Give another --out.")
    if not place.exists():
        return False
    with place.open("rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            raise InputError(f"{place}: found a file that is no PNG picture, needed a free name. Give another --out.")
    return True
