"""Finding a user's own function from ``package.module:function``."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from neuroexapt.errors import ModelError


@contextmanager
def working_directory_importable() -> Iterator[None]:
    """Puts the current directory first on the import path, as ``python -m`` does, and takes it off again."""
    here = os.getcwd()
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if here in sys.path:  # the imported module may have edited the path itself
            sys.path.remove(here)


def import_function(source: str) -> Callable[..., Any]:
    """Imports what ``package.module:function`` names.

    Raises:
        ModelError: The module cannot be imported, has no such attribute, or the attribute cannot be called.
    """
    module_name, _, attribute = source.partition(":")
    if not (attribute.isidentifier() and all(part.isidentifier() for part in module_name.split("."))):
        raise ModelError(f"model.source: found {source!r}, needed package.module:function. Correct the name.")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the edge to the user's code: a module can raise anything while it is imported
        missing = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        advice = "Run in the folder that holds it, or install it." if missing else "Make it importable by itself first."
        raise ModelError(
            f"model.source: {source!r}: module {module_name} cannot be imported: "
            f"{type(error).__name__}: {error}. {advice}"
        ) from error
    names = vars(module)
    if attribute not in names:
        close = difflib.get_close_matches(attribute, names, n=1)
        hint = f"Did you mean {module_name}:{close[0]}?" if close else "Define it there, or correct the name."
        raise ModelError(f"model.source: {source!r}: module {module_name} has no {attribute!r}. {hint}")
    function = names[attribute]
    if not callable(function):
        raise ModelError(
            f"model.source: {source!r}: found {type(function).__name__}, needed a function or class that returns an "
            "nn.Module. Name one that can be called."
        )
    return function  # type: ignore[no-any-return]
