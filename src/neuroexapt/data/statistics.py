"""What is computed once from the pixels: mean and deviation of each channel, and a digest of everything."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from neuroexapt.data.labelled import LabelledImages

STD_FLOOR = 1.0 / 255.0  # one grey level: a constant channel is shifted to zero and not blown up
_CHUNK_BYTES = 1 << 22
_DIGEST_CHARACTERS = 16  # 64 bits: enough to notice a change, short enough to print


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of each channel, in units of uint8 / 255.

    Exact, whatever the number of images: it counts how often each of the 256 values occurs (C x 256 int64).

    Args:
        images: uint8 [N, C, H, W].

    Returns:
        Two float32 tensors [C] on the CPU; the deviation is at least ``STD_FLOOR``.
    """
    channels = images.shape[1]
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    for chunk in _chunks(images):
        for channel in range(channels):
            counts[channel] += torch.bincount(chunk[:, channel].reshape(-1), minlength=256).cpu()
    values = torch.arange(256, dtype=torch.float64) / 255.0
    shares = counts.to(torch.float64) / counts.sum(dim=1, keepdim=True)
    mean = shares @ values
    variance = (shares * (values - mean[:, None]).square()).sum(dim=1)
    return mean.to(torch.float32), variance.sqrt().clamp_min(STD_FLOOR).to(torch.float32)


def _chunks(images: Tensor) -> Iterator[Tensor]:
    rows = max(1, _CHUNK_BYTES // images[0].numel())
    return (images[start : start + rows] for start in range(0, len(images), rows))


def content_fingerprint(splits: Iterable[LabelledImages], class_names: Iterable[str]) -> str:
    """Returns a short hexadecimal digest that changes with any pixel, label, shape, order or class name."""
    digest = hashlib.sha256(repr(tuple(class_names)).encode())
    for split in splits:
        digest.update(repr(tuple(split.images.shape)).encode())
        digest.update(split.images.cpu().numpy().data)
        digest.update(split.labels.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:_DIGEST_CHARACTERS]
