"""Turns the device a user asked for into one that is there, or says which ones are."""

from __future__ import annotations

import re

import torch

from neuroexapt.errors import InputError

_NAME = re.compile(r"auto|cpu|mps|cuda(?::([0-9]{1,4}))?")


def pick_device(name: str) -> torch.device:
    """Returns the device called ``name``; a CUDA device always comes with its index.

    Args:
        name: "auto" (CUDA, else MPS, else the CPU), "cpu", "cuda" (torch's current one), "cuda:1" or "mps".

    Raises:
        InputError: The name means nothing, or this machine has no such device; lists what it has.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(f"device: found {name!r}, needed auto, cpu, cuda, cuda:<index> or mps. {_available()}")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.startswith("cuda"):
        return _cuda(name, match[1])
    if name == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device: found mps, which this machine does not offer. {_available()}")
    return torch.device(name)


def _cuda(name: str, index: str | None) -> torch.device:
    if not torch.cuda.is_available():
        built = "this torch is built without CUDA" if torch.version.cuda is None else "torch sees no usable GPU"
        raise InputError(f"device: found {name}, but {built}. {_available()}")
    if index is None:
        return torch.device("cuda", torch.cuda.current_device())
    if int(index) >= (count := torch.cuda.device_count()):
        raise InputError(f"device: found {name}, needed an index from 0 to {count - 1}. {_available()}")
    return torch.device("cuda", int(index))


def _available() -> str:
    names = ["cpu"]
    if torch.cuda.is_available():
        names += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return f"Available: {', '.join(names)}; `auto` takes the fastest."
