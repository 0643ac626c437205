"""Models under ``torch.compile``: the module inside, running it as it is written, and forgetting compiled code.

The compiler's shell only holds the user's module, so that is what is traced and edited; the shell, or a module compiled
in place, goes on working. While we look, nothing compiled runs: compiled code hides the operators and pins their sizes.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator

import torch
from torch import nn


def without_compiler(model: nn.Module) -> nn.Module:
    """Returns the module inside ``torch.compile``'s shell, or the model itself where there is none."""
    loaded = sys.modules.get("torch._dynamo.eval_frame")  # importing the compiler takes a second
    while loaded is not None and isinstance(model, loaded.OptimizedModule):
        model = model._orig_mod
    return model


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Runs compiled modules and functions as the Python that they were compiled from."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with warnings.catch_warnings():  # that our global hooks see the shell of a compiled part and the part itself
        warnings.filterwarnings("ignore", message="Using `torch.compile", category=UserWarning)
        with torch.compiler.set_stance("force_eager"):
            yield


def forget_compiled_code() -> None:
    """Drops all compiled code; it is made again on the next call.

    Guards would find the new shapes, but after ``torch._dynamo.config.recompile_limit`` of them a frame is run eagerly
    for good, without a word.
    """
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
