"""Batches as they were asked for, and errors of the user's own code told with the place where they came up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from neuroexapt.errors import InputError, ModelError, NeuroExaptError


def checked_batches(batches: Iterable[tuple[Any, Tensor]]) -> Iterator[tuple[Any, Tensor]]:
    """Yields what is given, as long as it is (inputs, targets) of as many samples and all targets are of one kind.

    Raises:
        InputError: It is not; the message has the number of the batch, from 0.
    """
    kind: tuple[int, bool] | None = None
    try:
        stream = iter(batches)
    except TypeError as error:
        raise InputError(f"evidence: found {_words(batches)}, needed batches of (inputs, targets).") from error
    for number, batch in enumerate(stream):
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise InputError(f"evidence: batch {number}: found {_words(batch)}, needed a pair (inputs, targets).")
        inputs, targets = batch
        if not isinstance(targets, Tensor) or targets.dim() == 0 or not len(targets):
            raise InputError(
                f"evidence: batch {number}: found {_words(targets)} as targets, needed a tensor with one entry for "
                "each sample. Pass any such tensor if the loss needs none."
            )
        found = [list(leaf.shape) for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
        if found and not any(shape[:1] == [len(targets)] for shape in found):
            raise InputError(
                f"evidence: batch {number}: found inputs of {', '.join(map(str, found[:4]))} with targets of "
                f"{list(targets.shape)}, needed the samples in the first dimension of both."
            )
        own = targets.dim(), targets.is_floating_point()
        if kind is not None and own != kind:
            raise InputError(f"evidence: batch {number}: found {_words(targets)} as targets, unlike those before it.")
        kind = own
        yield inputs, targets


@contextlib.contextmanager
def told(where: str, remedy: str) -> Iterator[None]:
    """Has errors of the user's code say where they were and what can be done.

    Raises:
        ModelError: In place of any error that is neither this library's nor about memory.
    """
    try:
        yield
    except (NeuroExaptError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the edge to the user's code: its own error is the message
        own = str(error).rstrip(". ")
        raise ModelError(f"{where} failed with {type(error).__name__}: {own}. {remedy}") from error


def _words(thing: object) -> str:
    if isinstance(thing, Tensor):
        return f"a tensor {list(thing.shape)} of {thing.dtype}".replace("torch.", "")
    return f"{type(thing).__name__} of {len(thing)}" if isinstance(thing, (tuple, list)) else type(thing).__name__
