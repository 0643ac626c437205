"""Random flips and crops of a batch of images that lie in memory as bytes, by one gather.

What happens to an image depends on the generator's seed and on how often the image was seen, so a step that is repeated
sees the same batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuroexapt.config import AugmentConfig


def augment(config: AugmentConfig, images: Tensor, turns: Tensor, generator: torch.Generator) -> Tensor:
    """Returns the images flipped and cropped.

    Args:
        config: What is done.
        images: uint8 [N, C, H, W] with H and W above ``crop_padding``.
        turns: int64 [N]: at odd ones ``flip="alternating"`` mirrors the image.
        generator: Of this batch.

    Returns:
        uint8 [N, C, H, W]; the batch itself where nothing is to be done. Memory: N x H x W int64.
    """
    if config.flip == "none" and not config.crop_padding:
        return images
    count, channels, height, width = images.shape
    is_mirrored = torch.zeros(count, dtype=torch.bool)
    if config.flip == "alternating":
        is_mirrored = turns % 2 == 1
    elif config.flip == "random":
        is_mirrored = torch.randint(2, (count,), generator=generator).bool()
    rows = _window(height, config.crop_padding, count, generator)
    columns = _window(width, config.crop_padding, count, generator)
    columns = torch.where(is_mirrored[:, None], columns.flip(1), columns)
    index = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, -1).to(images.device)
    return images.flatten(2).gather(2, index.expand(-1, channels, -1)).view_as(images)


def _window(size: int, padding: int, count: int, generator: torch.Generator) -> Tensor:
    """Returns where each pixel of a shifted line is read, int64 [count, size]; beyond the ends the line is mirrored."""
    shift = torch.randint(-padding, padding + 1, (count, 1), generator=generator)
    place = (torch.arange(size) + shift).abs()
    return (size - 1) - ((size - 1) - place).abs()
