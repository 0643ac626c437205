"""With what a row was measured: rows of one table may come from several machines."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("torch", "torchvision", "timm", "transformers", "torch-pruning")


def environment() -> str:
    """Returns the versions of Python and of the libraries, in words."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in _PACKAGES)])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
