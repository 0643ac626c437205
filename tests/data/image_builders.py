"""Small real files: encoded images, Parquet in the Hugging Face layout, folders of images."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def pixels(value: int, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Image.Image:
    """An image of width 6 and height 4 whose every pixel is made from ``value``."""
    colour = value if mode in ("L", "P") else (value, 255 - value, 7)
    return Image.new(mode, size, colour)


def encode(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def noisy_jpeg(size: int = 32) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return encode(Image.fromarray(noise), "JPEG")


def rows(num_images: int, num_classes: int = 2, first: int = 0) -> tuple[list[bytes], list[int]]:
    """Images whose red is their number, labels that go round the classes."""
    numbers = range(first, first + num_images)
    return [encode(pixels(number)) for number in numbers], [number % num_classes for number in numbers]


def write_parquet(
    file: Path,
    images: list[Any],
    labels: Any,
    *,
    names: list[str] | None = None,
    image: str = "img",
    label: str = "label",
    as_struct: bool = True,
    row_group_size: int | None = None,
) -> Path:
    if as_struct:
        cells = [{"bytes": content, "path": None} for content in images]
        column = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    else:
        column = pa.array(images, pa.binary())
    table = pa.table({image: column, label: labels})
    if names is not None:
        features = {label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=row_group_size)
    return file


def write_class_folders(root: Path, num_images: int, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(num_images):
            pixels(10 * label + number).save(root / name / f"{number}.png")
    return root
