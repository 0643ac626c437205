"""The size of a space when some leaves have other sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from neuroexapt.graph.space import Space, resolve


def resized(space: Space, sizes: Mapping[Any, int]) -> int:
    """Returns the size of a space when some leaves have other sizes."""
    node = resolve(space)
    if node in sizes:
        return sizes[node]
    if node.form == "leaf":
        return node.size
    inner = [resized(part, sizes) for part in node.parts]
    return sum(inner) if node.form == "sum" else math.prod(inner)
