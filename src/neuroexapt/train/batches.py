"""Batches of a split that lies in memory as bytes. Memory: one permutation and one normalised batch at a time."""

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
    generator: torch.Generator | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (images float32 [n, C, H, W], labels int64 [n]) on ``device``.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
        size: Samples per batch; a remainder of one sample joins the batch before it, because batch norm needs two.
        normalise: uint8 -> float32.
        device: Where to put them.
        generator: Shuffles; without it the order is kept.
    """
    count = len(labels)
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    starts = range(0, num_batches(count, size) * size, size)
    for start, end in zip(starts, [*starts[1:], count], strict=True):
        chosen = order[start:end]
        yield normalise(images[chosen].to(device)), labels[chosen].to(device)


def num_batches(count: int, size: int) -> int:
    """Returns how many batches ``batches`` yields."""
    full, rest = divmod(count, size)
    return full + 1 if rest > 1 or (rest == 1 and full == 0) else full
