"""Running a user's ``forward`` without leaving a trace in the model's Python state or in any global generator.

A forward may cache tensors in attributes, count its calls, register buffers or draw random numbers. What it did while
we looked is taken back, so that looking never changes a training run.
"""

from __future__ import annotations

import contextlib
import gc
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

_STORES = ("_parameters", "_buffers", "_modules")


@contextlib.contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Restores every attribute of every module on exit, and the contents of attributes that are lists, dicts or sets.

    Memory: one dictionary of references per module.
    """
    saved = [(module, dict(vars(module)), _contents(module)) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes, contents in saved:
            vars(module).clear()
            vars(module).update(attributes)
            for container, kept in contents:
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(kept)


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keeps Python's cyclic garbage collector out of a stretch that makes very many objects which all stay alive.

    In a trace its full collections find nothing and take up to half of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def settings_of(model: nn.Module) -> tuple[tuple[str, str, object], ...]:
    """Returns the numbers, booleans and strings that modules keep as attributes; train or eval mode is not one."""
    return tuple(
        (path, name, value)
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if type(value) in (int, float, bool, str) and name != "training"
    )


def _contents(module: nn.Module) -> list[tuple[Any, Any]]:
    found = [value for name, value in vars(module).items() if name in _STORES or type(value) in (list, dict, set)]
    return [(value, value.copy()) for value in found]


@contextlib.contextmanager
def generators_kept(seed: int | None = None) -> Iterator[Callable[[], bool]]:
    """Restores the global generators of torch (CPU and CUDA in use), Python and NumPy on exit.

    Args:
        seed: Seeds torch's generators inside, so that two runs draw the same.

    Yields:
        A function that says whether anything has been drawn since.
    """
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        generators += list(torch.cuda.default_generators)
    before, python_before, numpy_before = _states(generators), random.getstate(), np.random.get_state()
    try:
        started = before
        if seed is not None:
            for generator in generators:
                generator.manual_seed(seed)
            started = _states(generators)

        def drawn() -> bool:
            now = (_states(generators), random.getstate(), _comparable(np.random.get_state()))
            return now != (started, python_before, _comparable(numpy_before))

        yield drawn
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
        random.setstate(python_before)
        np.random.set_state(numpy_before)


def _states(generators: list[torch.Generator]) -> list[bytes]:
    return [generator.get_state().numpy().tobytes() for generator in generators]


def _comparable(state: Any) -> tuple[Any, ...]:
    return tuple(part.tobytes() if isinstance(part, np.ndarray) else part for part in state)
