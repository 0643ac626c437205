"""The undo log: every write registers how to take it back, and all are taken back in reverse order."""

from __future__ import annotations

from collections.abc import Callable


class UndoLog:
    """Reversible writes of one edit.

    Memory: holds what was replaced (the old tensors of changed parameters and their optimizer state) until dropped.
    """

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def add(self, undo: Callable[[], object]) -> None:
        """Registers the inverse of a write that has just been made."""
        self._steps.append(undo)

    def roll_back(self) -> None:
        """Takes every write back, last first, once."""
        while self._steps:
            self._steps.pop()()
