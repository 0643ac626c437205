"""Running out of memory at a chosen operator."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class OutOfMemoryAt(TorchDispatchMode):
    """Fails at the operators ``failing`` among those that allocate, and counts them all; views allocate nothing."""

    def __init__(self, *failing: int) -> None:
        super().__init__()
        self.failing, self.count = failing, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if all(result.alias_info is None or result.alias_info.is_write for result in func._schema.returns):
            self.count += 1
            if self.count - 1 in self.failing:
                raise MemoryError(f"injected at {func}")
        return func(*args, **(kwargs or {}))
