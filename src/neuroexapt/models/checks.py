"""The check that the sizes of a built-in network are whole numbers above zero, as options come from files."""

from __future__ import annotations

from collections.abc import Sequence

from neuroexapt.errors import ModelError


def require_positive(where: str, values: Sequence[int], *, at_least_one: bool = False) -> None:
    """Checks that ``values`` is a sequence of integers >= 1.

    Raises:
        ModelError: It is not, or it is empty and ``at_least_one`` is set.
    """
    good = isinstance(values, (list, tuple)) and all(type(value) is int and value >= 1 for value in values)
    if not good or (at_least_one and not values):
        size = "one or more " if at_least_one else ""
        raise ModelError(f"{where}: found {values!r}, needed {size}integers of at least 1. Correct model.options.")
