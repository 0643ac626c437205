"""Which columns of a Parquet file hold images and labels, read from its schema.

The Hugging Face layout keeps an image as struct{bytes, path} or plain binary, and the names of the classes as JSON
under the key ``huggingface`` of the schema metadata.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from neuroexapt.errors import DataError

IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Where images and labels are."""

    image: str  # the leaf that holds the encoded bytes: "img", or "img.bytes" of a struct
    label: str
    text_labels: bool  # labels are strings, not integers
    class_names: tuple[str, ...] | None  # as declared, in label order


def find_columns(where: str, schema: Any) -> Columns:
    """Returns the columns to read.

    Args:
        where: The file, for messages.
        schema: A ``pyarrow.Schema``.

    Raises:
        DataError: There is no image column, or no label column, or several image columns; all are listed.
    """
    listing = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
    image = _image_column(where, schema, listing)
    for name in LABEL_NAMES:
        for field in schema:
            kind = _label_kind(field.type) if field.name.lower() == name else None
            if kind is not None:
                return Columns(
                    image=image,
                    label=field.name,
                    text_labels=kind == "text",
                    class_names=_declared_names(schema, field.name) if kind == "integer" else None,
                )
    raise DataError(
        f"{where}: found no label column, needed one of integers or strings named {', '.join(LABEL_NAMES)}. "
        f"The columns are: {listing}. Rename the one with the labels."
    )


def _image_column(where: str, schema: Any, listing: str) -> str:
    leaves = {field.name: leaf for field in schema if (leaf := _image_leaf(field)) is not None}
    if len(leaves) > 1:
        leaves = {name: leaf for name, leaf in leaves.items() if name.lower() in IMAGE_NAMES}
    if len(leaves) == 1:
        return next(iter(leaves.values()))
    raise DataError(
        f"{where}: found no column that is clearly the image, needed one of encoded bytes or struct{{bytes, path}}, "
        f"named {' or '.join(IMAGE_NAMES)} if there are several. The columns are: {listing}."
    )


def _image_leaf(field: Any) -> str | None:
    import pyarrow as pa  # optional; parquet.py has checked that it is there

    def is_bytes(kind: Any) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    if is_bytes(field.type):
        return str(field.name)
    if pa.types.is_struct(field.type):
        index = field.type.get_field_index("bytes")
        if index >= 0 and is_bytes(field.type.field(index).type):
            return f"{field.name}.bytes"
    return None


def _label_kind(kind: Any) -> str | None:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind):
        return "integer"
    return "text" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None


def _declared_names(schema: Any, column: str) -> tuple[str, ...] | None:
    """Returns the names of a Hugging Face ClassLabel; a note in another form declares nothing."""
    node: Any = None
    try:
        node = json.loads((schema.metadata or {}).get(b"huggingface", b"null"))
    except ValueError:
        return None
    for key in ("info", "features", column, "names"):
        node = node.get(key) if isinstance(node, dict) else None
    if not isinstance(node, list) or not node:
        return None
    return tuple(str(name) for name in node)
