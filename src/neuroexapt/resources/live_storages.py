"""Counting the bytes of all storages that are alive while code runs, on real or on fake tensors.

What ``torch.distributed._tools.mem_tracker`` does, in small: every result of an operator is a storage, views share one,
and a weak reference tells when it is freed. Scratch inside a kernel is not seen; where it is known it can be added.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveStorages(TorchDispatchMode):
    """Counts while it is entered, and goes on noticing what is freed.

    Memory: one weak reference for each storage that is alive.

    Attributes:
        num_bytes: Alive now, of those that were watched or made inside, without those set apart.
        peak_bytes: The most of it so far.
        apart_bytes: Alive now of those set apart.
        total_peak_bytes: The most of both together so far.

    Args:
        scratch: (operator, arguments, result) -> bytes at the worst moment inside the operator, results included.
    """

    def __init__(self, scratch: Callable[[Any, Sequence[Any], Any], int] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_bytes = self.peak_bytes = self.apart_bytes = self.total_peak_bytes = 0
        self._alive: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._apart: set[int] = set()
        self._scratch = scratch

    def watch(self, tensor: Tensor) -> None:
        """Counts a tensor's storage from now on, once."""
        storage = tensor.untyped_storage()
        key = id(storage)
        if key not in self._alive:
            size = storage.nbytes()
            self._alive[key] = weakref.ref(storage, partial(self._forget, key)), size
            self.num_bytes += size
            self._note(self.num_bytes)

    def set_apart(self, tensor: Tensor) -> None:
        """Moves a storage from one sum to the other, for example because it is a gradient by now."""
        self.watch(tensor)
        key = id(tensor.untyped_storage())
        if key not in self._apart:
            self._apart.add(key)
            self.num_bytes -= self._alive[key][1]
            self.apart_bytes += self._alive[key][1]

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operator and counts what it returns."""
        before = self.num_bytes
        result = func(*args, **(kwargs or {}))
        if self._scratch is not None:
            self._note(before + self._scratch(func, args, result))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.watch(leaf)
        return result

    def _note(self, num_bytes: int) -> None:
        self.peak_bytes = max(self.peak_bytes, num_bytes)
        self.total_peak_bytes = max(self.total_peak_bytes, num_bytes + self.apart_bytes)

    def _forget(self, key: int, _: object) -> None:
        size = self._alive.pop(key)[1]
        if key in self._apart:
            self._apart.remove(key)
            self.apart_bytes -= size
        else:
            self.num_bytes -= size
