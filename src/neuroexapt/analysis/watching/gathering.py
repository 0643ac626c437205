"""What all processes have seen: the same on each of them, and an error of one is an error of all.

Collective calls are made in the same order everywhere: after everything that can fail, word is passed of who did.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import fields
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from neuroexapt.analysis.watching.sample import LayerSample
from neuroexapt.errors import NeuroExaptError

T = TypeVar("T")


def num_processes() -> int:
    """Returns how many processes take part."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Returns the number of this one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def from_all(value: T) -> list[T]:
    """Returns what each process passes, by rank; waits for all of them.

    Args:
        value: Small, and can be pickled.
    """
    if num_processes() == 1:
        return [value]
    told: list[T | None] = [None] * num_processes()
    dist.all_gather_object(told, value)
    return told  # type: ignore[return-value]  # every entry has been written


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Has a block fail on all processes where it fails on one, so that none waits for another forever.

    Raises:
        NeuroExaptError: The class and the message of the first process's error, with its rank before it.
    """
    if num_processes() == 1:
        yield
        return
    failure: Exception | None = None
    try:
        yield
    except Exception as error:  # whatever it is, the other processes wait for word of it; it is raised below
        failure = error
    failures = from_all(None if failure is None else _described(failure))
    for number, described in enumerate(failures):
        if described is not None:
            kind, message = described
            raise kind(f"rank {number}: {message}") from failure


def _described(failure: Exception) -> tuple[type[NeuroExaptError], str]:
    """What can be sent of an error; those of others, whose classes may need more than a message, by name."""
    if isinstance(failure, NeuroExaptError):
        return type(failure), str(failure)
    return NeuroExaptError, f"{type(failure).__name__}: {failure}"


def everybodys(sample: LayerSample, limit: int) -> LayerSample:
    """Returns the sample of all processes together, the same on each; waits for all of them.

    Memory: the rows of all, twice.

    Args:
        sample: This process's own; every process has as many rows. What one lacks, the result lacks.
        limit: At most so many rows are returned.
    """
    if num_processes() == 1:
        return sample
    held = {f.name: getattr(sample, f.name) for f in fields(sample) if f.init}
    own = {name for name, value in held.items() if isinstance(value, Tensor)}
    shared = set.intersection(*from_all(own))
    for name in (name for name in held if name in own):
        if name not in shared:
            held[name] = None
        elif name in ("low", "high"):
            found = _sendable(held[name].clone())
            dist.all_reduce(found, dist.ReduceOp.MIN if name == "low" else dist.ReduceOp.MAX)
            held[name] = found.cpu()
        else:
            sent = _sendable(held[name].contiguous())
            parts = [torch.empty_like(sent) for _ in range(num_processes())]
            dist.all_gather(parts, sent)
            held[name] = torch.stack(parts, 1).flatten(0, 1)[:limit].cpu()
    return LayerSample(**held)


def _sendable(tensor: Tensor) -> Tensor:
    """Where the backend takes it: NCCL sends from a device only."""
    return tensor.cuda() if dist.get_backend() == "nccl" else tensor
