"""Images and Parquet files for the command line to read."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(value: int) -> bytes:
    """Returns an image of 8 x 8 pixels of one grey."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8), value).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, images: Sequence[bytes], labels: Sequence[int]) -> None:
    """Writes encoded images with their labels in the Hugging Face layout."""
    pq.write_table(pa.table({"image": [{"bytes": b, "path": None} for b in images], "label": labels}), path)
