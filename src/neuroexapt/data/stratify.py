"""Cutting a part out of labelled rows so that every class keeps its share, on either side of the cut."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuroexapt.errors import DataError


def stratified_cut(
    labels: Tensor,
    size: int,
    *,
    class_names: Sequence[str],
    generator: torch.Generator,
    least: int = 1,
    keep: int = 1,
    what: str,
) -> tuple[Tensor, Tensor]:
    """Cuts ``size`` rows out; each class gives its share, rounded, at random.

    Args:
        labels: int64 [N], values below ``len(class_names)``.
        size: Rows wanted; more are taken where ``least`` of every class asks for it, fewer where ``keep`` does.
        class_names: Of the labels, for messages.
        generator: Decides which rows.
        least: Rows of every class that the part must have.
        keep: Rows of every class that must stay.
        what: Name of what is being cut, for messages.

    Returns:
        The rows of the part and the rows that stay, int64, each in ascending order.

    Raises:
        DataError: A class has fewer than ``least + keep`` rows.
    """
    counts = class_counts(labels, least + keep, class_names=class_names, what=what)
    allotted = _allot(counts.tolist(), size, least, keep)
    order = torch.randperm(len(labels), generator=generator)
    taken = torch.zeros(len(labels), dtype=torch.bool)
    shuffled = labels[order]
    for label, number in enumerate(allotted):
        taken[order[(shuffled == label).nonzero().flatten()[:number]]] = True
    return taken.nonzero().flatten(), (~taken).nonzero().flatten()


def class_counts(labels: Tensor, needed: int, *, class_names: Sequence[str], what: str) -> Tensor:
    """Returns the number of rows of each class, int64 [classes], after checking that each has enough.

    Raises:
        DataError: A class has fewer than ``needed`` rows.
    """
    counts = torch.bincount(labels, minlength=len(class_names))
    scarce = (counts < needed).nonzero().flatten().tolist()
    if scarce:
        others = f" (and so for {len(scarce) - 1} more)" if len(scarce) > 1 else ""
        raise DataError(
            f"{what}: class {class_names[scarce[0]]!r}: found {int(counts[scarce[0]])} images, needed at least "
            f"{needed} to be in every split{others}. Add images, or remove the class."
        )
    return counts


def _allot(counts: list[int], size: int, least: int, keep: int) -> list[int]:
    """Returns how many of each class to take: largest remainders, within ``least`` and ``count - keep``."""
    quotas = [size * count / sum(counts) for count in counts]
    allotted = [min(max(int(quota), least), count - keep) for quota, count in zip(quotas, counts, strict=True)]
    while sum(allotted) < size:
        room = [index for index, count in enumerate(counts) if allotted[index] < count - keep]
        if not room:
            break
        allotted[max(room, key=lambda index: quotas[index] - allotted[index])] += 1
    while sum(allotted) > size:
        spare = [index for index, number in enumerate(allotted) if number > least]
        if not spare:
            break
        allotted[max(spare, key=lambda index: allotted[index] - quotas[index])] -= 1
    return allotted
