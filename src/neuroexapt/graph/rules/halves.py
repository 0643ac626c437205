"""An axis that an operator takes as (major, minor): groups of channels, heads, pixels inside a channel."""

from __future__ import annotations

from neuroexapt.graph.space import Space, product, resolve, split_major
from neuroexapt.graph.values import Call, fresh


def halved(call: Call, space: Space, major: int) -> tuple[Space, Space]:
    """Returns the two factors of an axis; one that has no such factors is pinned, and they with it."""
    halves = split_major([space], major)
    if halves is not None:
        return product(halves[0]), product(halves[1])
    call.pins([space], f"{space.size} indices, put together from parts, are divided by {major}")
    reason = resolve(space).pin_reason
    return fresh(major, reason), fresh(space.size // major, reason)
