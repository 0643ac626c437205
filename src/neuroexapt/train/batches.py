"""Batches of a split that lies in memory as bytes, and which rows make up a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def batches(
    images: Tensor,
    labels: Tensor,
    size: int,
    normalise: Callable[[Tensor], Tensor],
    device: torch.device,
    order: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (images float32 [n, C, H, W], labels int64 [n]) on ``device``, one normalised batch at a time.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
        size: Samples per batch, as ``batch_slices`` takes it.
        normalise: uint8 -> float32.
        device: Where to put them.
        order: Rows in the order in which they come, int64; all as they lie if not given.
    """
    rows = torch.arange(len(labels)) if order is None else order
    for part in (rows[taken] for taken in batch_slices(len(rows), size)):
        yield normalise(images[part].to(device)), labels[part].to(device)


def batch_slices(count: int, size: int) -> list[slice]:
    """Returns which of ``count`` samples make up each batch of ``size``.

    A remainder of one sample joins the batch before it, because batch norm needs two.
    """
    full, rest = divmod(count, size)
    number = full + 1 if rest > 1 or (rest == 1 and full == 0) else full
    starts = [index * size for index in range(number)]
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], count], strict=True)]
