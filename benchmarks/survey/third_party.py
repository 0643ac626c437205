"""Model libraries, importable: torchvision beside any torch, Transformers without a network.

The usual wheel of torchvision is built for CUDA. Its C++ library cannot be loaded beside a torch that is not, and the
import then fails because two operators have no schema. Only in that case they are given one; nothing calls them.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_definitions: list[torch.library.Library] = []  # a library takes its operators along when it is collected


def prepare_third_party() -> None:
    """Makes ``import torchvision`` and what builds on it possible, once a process; nothing is downloaded."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    spec = importlib.util.find_spec("torchvision")
    if _definitions or spec is None or spec.origin is None or hasattr(torch.ops.torchvision, "nms"):
        return
    try:
        for library in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(str(library))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(name + _SCHEMA)
        _definitions.append(library)
        warnings.filterwarnings("ignore", message="Failed to load image Python extension")
