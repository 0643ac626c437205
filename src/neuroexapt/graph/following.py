"""The function mode that follows integers through one forward pass.

It sees every call of a torch function with the user's own arguments: sizes that code reads become integers that
remember their index space, and sizes that code passes become equations.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neuroexapt.graph.attributes import integers_traced
from neuroexapt.graph.equations import READERS, Equation, Reading, extent
from neuroexapt.graph.expressions import Expression, Extent, Session, product_of, traced
from neuroexapt.graph.recorder import Recorder
from neuroexapt.graph.space import Space, resolve

_NOT_THE_USERS = tuple(f"{Path(file).parent}{os.sep}" for file in (torch.__file__, __file__))
_FRAMES = 40  # how far up the caller is looked for


class _IntegerFollower(TorchFunctionMode):
    """Collects the equations of one forward pass. Memory: a few words for every size in the user's code."""

    def __init__(self, recorder: Recorder, session: Session, equations: list[Equation]) -> None:
        super().__init__()
        self._equations = equations
        self._recorder = recorder
        self._session = session
        self._reading = Reading(self._spaces, session)

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the function, then reads its arguments."""
        options = kwargs or {}
        result = func(*args, **options)
        name = getattr(func, "__name__", "")
        if name == "__get__":
            is_shape = getattr(getattr(func, "__self__", None), "__name__", "") == "shape"
            return self._traced_shape(args[0], result) if is_shape else result
        if name in ("size", "numel", "nelement"):
            return self._traced_size(name, args, options, result)
        if name in READERS and not isinstance(result, int):
            # A reading that stumbles over a rare form of a call loses an equation; the rehearsal still judges.
            try:
                self._note(name, args, options, result)
            except (TypeError, ValueError, IndexError, KeyError):
                return result
        return result

    def _note(self, name: str, args: tuple[Any, ...], options: dict[str, Any], result: Any) -> None:
        where = ""
        for written, needed in READERS[name](self._reading, args, options, result):
            if not _is_the_same(written, needed):
                where = where or _caller()
                self._equations.append(Equation(written, needed, where))

    def _spaces(self, tensor: Tensor) -> Sequence[Space] | None:
        return self._recorder.known_dims(tensor)

    def _traced_shape(self, tensor: Tensor, shape: torch.Size) -> torch.Size:
        spaces = self._spaces(tensor)
        if spaces is None:
            return shape
        return torch.Size([self._traced(size, space) for size, space in zip(shape, spaces, strict=True)])

    def _traced_size(self, name: str, args: tuple[Any, ...], options: dict[str, Any], result: Any) -> Any:
        spaces = self._spaces(args[0]) if isinstance(args[0], Tensor) else None
        if spaces is None:
            return result
        if name != "size":
            return traced(result, product_of(extent(space) for space in spaces), self._session)
        if isinstance(result, torch.Size):
            return self._traced_shape(args[0], result)
        dim = args[1] if len(args) > 1 else options["dim"]
        return self._traced(result, spaces[dim])

    def _traced(self, size: int, space: Space) -> int:
        return size if size == 1 else traced(size, Extent(space), self._session)


def _is_the_same(written: Expression, needed: Expression) -> bool:
    """Whether two expressions are equal at any size."""
    if isinstance(written, Extent) and isinstance(needed, Extent):
        return resolve(written.space) is resolve(needed.space)
    return isinstance(written, int) and isinstance(needed, int)


@contextlib.contextmanager
def integers_followed(model: nn.Module, recorder: Recorder, equations: list[Equation]) -> Iterator[None]:
    """Follows the integers of whatever runs inside and adds the equations of its sizes to ``equations``.

    The model's integers are the user's own again afterwards, whatever happens.
    """
    session = Session()
    with integers_traced(model, session), _IntegerFollower(recorder, session, equations):
        yield


def _caller() -> str:
    """Returns the last two parts of the file, and the line, of the innermost code that is not torch's or ours."""
    frame, steps = sys._getframe(2), 0
    while frame.f_back is not None and steps < _FRAMES and frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        frame, steps = frame.f_back, steps + 1
    return f"{'/'.join(Path(frame.f_code.co_filename).parts[-2:])}:{frame.f_lineno}"
