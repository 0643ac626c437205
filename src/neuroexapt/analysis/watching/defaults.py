"""Our own arithmetic in float32 on the CPU, whatever the user has made the default for new tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def plain_defaults() -> Iterator[None]:
    """Has new tensors be float32 on the CPU where nothing else is said; the user's defaults come back on exit."""
    dtype = torch.get_default_dtype()
    is_elsewhere = torch.get_default_device().type != "cpu"  # the context costs a little at every operation
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu") if is_elsewhere else contextlib.nullcontext():
            yield
    finally:
        torch.set_default_dtype(dtype)
