"""Hanging pieces on the user's own modules by an in-place class swap.

A grafted module is an instance of a subclass of its own class, with the pieces in a child ``grafts`` that its output
runs through. State-dict names, ``isinstance`` and attributes such as ``.weight`` stay the user's; the pieces add the
keys ``<site>.grafts.<index>.<name in the piece>`` and nothing is renamed. Deep copies and pickles work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import nn

from neuroexapt.errors import SurgeryError

CHILD = "grafts"

_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}  # one entry per class of the user's that was ever grafted


class Grafted:
    """Mixin of the generated classes: the user's forward, then the pieces."""

    grafts: nn.ModuleList

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the module's own forward and sends its output through the pieces; they also see what it was given."""
        output = super().forward(*args, **kwargs)  # type: ignore[misc]
        for piece in self.grafts:
            is_removed = isinstance(piece, nn.Identity)
            output = output if is_removed else piece(output, *args, *kwargs.values())
        return output

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild, (own_class(cast(nn.Module, self)),), self.__dict__.copy()


def attach(site: nn.Module, piece: nn.Module) -> None:
    """Hangs a piece behind a module, after those that already hang there.

    Raises:
        SurgeryError: The module has an attribute of its own called ``grafts``.
    """
    if not isinstance(site, Grafted):
        if hasattr(site, CHILD):
            raise SurgeryError(f"{type(site).__name__} has an attribute {CHILD!r} of its own; rename it to graft here.")
        site.__class__ = _grafted_class(type(site))
        site.add_module(CHILD, nn.ModuleList())
    getattr(site, CHILD).append(piece)


def detach(site: nn.Module) -> None:
    """Takes the last piece away; without any the module is of its own class again."""
    grafts: nn.ModuleList = getattr(site, CHILD)
    del grafts[len(grafts) - 1]
    if not len(grafts):
        del site._modules[CHILD]
        site.__class__ = own_class(site)


def own_class(module: nn.Module) -> type[nn.Module]:
    """Returns the user's class of a module, whatever hangs on it."""
    return type(module).__mro__[2] if isinstance(module, Grafted) else type(module)


def pieces_of(site: nn.Module) -> list[nn.Module]:
    """Returns the pieces that hang on a module, in the order in which they run."""
    return list(site.grafts) if isinstance(site, Grafted) else []


def has_piece(site: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a piece of one of some kinds hangs on a module."""
    return any(isinstance(piece, kinds) for piece in pieces_of(site))


def ungraft(site: nn.Module) -> Callable[[], None]:
    """Gives a module of which every piece has left its own class back.

    Returns:
        A function that takes it back.
    """
    grafted: type[nn.Module] = type(site)
    grafts = site._modules.get(CHILD)
    if not isinstance(site, Grafted) or any(not isinstance(piece, nn.Identity) for piece in pieces_of(site)):
        return lambda: None

    def undo() -> None:
        site.__class__ = grafted  # type: ignore[assignment]
        site._modules[CHILD] = grafts

    module: nn.Module = site
    module.__class__ = own_class(site)
    del site._modules[CHILD]
    return undo


def is_piece_path(path: str) -> bool:
    """Whether a module path lies inside a graft."""
    return CHILD in path.split(".")


def site_of(piece_path: str) -> str:
    """Returns the path of the module on which a piece hangs."""
    return piece_path.rpartition(f".{CHILD}.")[0]


def _grafted_class(base: type[nn.Module]) -> type[nn.Module]:
    if base not in _CLASSES:
        _CLASSES[base] = type(f"Grafted{base.__name__}", (Grafted, base), {"__module__": base.__module__})
    return _CLASSES[base]


def _rebuild(base: type[nn.Module]) -> nn.Module:
    cls = _grafted_class(base)
    return cls.__new__(cls)
