"""Encoded images (JPEG, PNG, GIF, BMP, WebP) to one preallocated tensor of bytes, one image at a time.

An image that is damaged, cut short, too large or of another size is an error that says which one it is: a data set
that loads is a data set that is whole. Animated files give their first frame; transparency is dropped.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroexapt.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")

_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")  # nothing that starts another program, as EPS does
_GREY_MODES = ("L", "1")
_COLOUR_MODES = ("RGB", "RGBA", "RGBX", "P", "PA", "LA", "La", "RGBa", "CMYK", "YCbCr", "HSV", "LAB")
_BAD_CONTENT = (  # all that Pillow's decoders raise on damaged files
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    struct.error, zlib.error,
)  # fmt: skip


def decode_images(
    encoded: Iterable[tuple[str, bytes | Path]], count: int, *, size: tuple[int, int] | None = None
) -> Tensor:
    """Decodes ``count`` images; holds one of them beside the result.

    Args:
        encoded: Pairs of a name for messages (file, or file and row) and the encoded bytes or their file.
        count: How many pairs there are.
        size: Height and width that every image must have; None takes those of the first.

    Returns:
        uint8 [count, C, H, W], contiguous; C is 1 where all images are grey, else 3.

    Raises:
        DataError: Pillow is missing, an image cannot be decoded or differs in size, or all do not fit into memory.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            "data: found no Pillow, needed it to decode images. Install it with: pip install 'neuroexapt[data]'"
        ) from error
    stack: NDArray[np.uint8] | None = None
    filled = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for where, content in encoded:
            pixels = _decode(where, content, size)
            if stack is None:
                size = (pixels.shape[1], pixels.shape[2])
                stack = _allocate(where, (count, *pixels.shape))
            elif stack.shape[1] < pixels.shape[0]:  # the first colour after grey ones: grey is R = G = B
                stack = np.repeat(stack, 3, axis=1)
            stack[filled] = pixels
            filled += 1
    if stack is None or filled != count:
        raise DataError(f"images: found {filled}, needed {count}. The source changed while it was read; start again.")
    return torch.from_numpy(stack)


def _decode(where: str, content: bytes | Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Returns one image, [1, H, W] or [3, H, W]."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=_FORMATS) as image:
            if size is not None and (image.height, image.width) != size:
                raise DataError(
                    f"{where}: found an image {image.width} pixels wide and {image.height} high, needed {size[1]} by "
                    f"{size[0]} like the first one. Resize the images to one size before training."
                )
            image.load()
            return _pixels(where, image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{where}: found an image with more pixels than Pillow's limit against decompression bombs, needed fewer "
            f"({error}). Resize it, or remove it."
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{where}: found {_beginning(content)}, needed an image ({', '.join(_FORMATS)}). Remove or replace it."
        ) from error
    except _BAD_CONTENT as error:
        raise DataError(
            f"{where}: found a damaged or truncated image, needed a whole one. Pillow says: {error}. "
            "Remove it, or copy it again."
        ) from error


def _pixels(where: str, image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in _GREY_MODES:
        return np.asarray(image.convert("L"))[None]
    if image.mode not in _COLOUR_MODES:
        raise DataError(
            f"{where}: found pixels of mode {image.mode}, needed 8 bits a channel. Convert the image to grey or RGB."
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the way that Pillow asks for; straight to RGB is a warning
    colours = image if image.mode == "RGB" else image.convert("RGB")
    return np.asarray(colours).transpose(2, 0, 1)


def _allocate(where: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    needed_bytes = int(np.prod(shape, dtype=np.float64))
    available_bytes = psutil.virtual_memory().available
    if needed_bytes > available_bytes:
        raise DataError(
            f"{where}: {shape[0]:,} images like this one take {needed_bytes / 1e9:.1f} GB, found "
            f"{available_bytes / 1e9:.1f} GB of free memory. Set data.limit, or make the images smaller."
        )
    return np.empty(shape, dtype=np.uint8)


def _beginning(content: bytes | Path) -> str:
    return f"{len(content):,} bytes that begin {content[:8]!r}" if isinstance(content, bytes) else "no known format"
