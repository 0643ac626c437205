"""Module attributes that hold sizes: finding every integer, and setting one wherever it is kept.

An integer may sit in a module's attribute, in a tuple, list or dictionary there, or in a plain object that modules
share, such as a configuration. Tuples are rebuilt with their type; everything else is written in place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from neuroexapt.graph.expressions import Attribute, Key, Session, traced

_OWN = frozenset(vars(nn.Module()))  # torch's book-keeping inside every module
_DEPTH = 4  # of containers in containers


@dataclass(frozen=True, slots=True)
class AttributeEdit:
    """An integer (or tuple of integers) that a module keeps about its shape, and its new value.

    Attributes:
        module: Path of the module.
        name: The module's attribute.
        value: What it becomes.
        keys: The way to the value inside the attribute: indices, dictionary keys, attribute names of a plain object.
    """

    module: str
    name: str
    value: int | tuple[int, ...]
    keys: tuple[Key, ...] = ()


def set_attribute(model: nn.Module, edit: AttributeEdit) -> Callable[[], None]:
    """Carries an edit out.

    Returns:
        A function that puts back what was there.
    """
    holder: Any = model.get_submodule(edit.module)
    way: list[Key] = [edit.name, *edit.keys]
    holders = [holder]
    for key in way[:-1]:
        holders.append(_item(holders[-1], key))
    value: Any = edit.value
    while isinstance(holders[-1], tuple):
        value = _rebuilt(holders.pop(), way.pop(), value)
    store, key = _store(holders[-1]), way[-1]
    before = store[key]
    store[key] = value

    def undo() -> None:
        store[key] = before

    return undo


@contextlib.contextmanager
def attributes_set(model: nn.Module, edits: Sequence[AttributeEdit]) -> Iterator[None]:
    """Sets module attributes and puts the old values back."""
    undone: list[Callable[[], None]] = []
    try:
        for edit in edits:
            undone.append(set_attribute(model, edit))
        yield
    finally:
        for undo in reversed(undone):
            undo()


@contextlib.contextmanager
def integers_traced(model: nn.Module, session: Session) -> Iterator[None]:
    """Replaces all integers of all modules by integers that remember where they came from, and takes them back.

    Booleans, scripted modules and torch's own book-keeping are left alone. What several modules share belongs to the
    first of them.
    """
    swap = _Swap(session)
    try:
        for path, module in model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                swap.visit_module(path, module)
        yield
    finally:
        session.is_open = False
        swap.undo()


class _Swap:
    """Replaces integers in place and remembers what every store held."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._seen: dict[int, Any] = {}  # containers that were visited, kept alive so that ids stay unique
        self._kept: list[tuple[Any, Any]] = []

    def visit_module(self, path: str, module: nn.Module) -> None:
        store = vars(module)
        self._kept.append((store, dict(store)))
        for name in [name for name in store if name not in _OWN]:
            store[name] = self._traced(store[name], path, name, ())

    def undo(self) -> None:
        for store, before in reversed(self._kept):
            store.clear()
            (store.extend if isinstance(store, list) else store.update)(before)

    def _traced(self, value: Any, path: str, name: str, keys: tuple[Key, ...]) -> Any:
        kind = type(value)
        if kind is int:
            return traced(value, Attribute(path, name, keys, value), self._session)
        if kind in (str, float, bool, type(None)) or len(keys) >= _DEPTH:
            return value
        if isinstance(value, tuple):
            items = [self._traced(item, path, name, (*keys, i)) for i, item in enumerate(value)]
            return value if all(a is b for a, b in zip(items, value, strict=True)) else _tuple_like(value, items)
        if _is_open(value) and id(value) not in self._seen:
            self._seen[id(value)] = value
            store = _store(value)
            self._kept.append((store, store.copy()))
            for key in list(range(len(store)) if isinstance(store, list) else store):
                if isinstance(key, (str, int)):
                    store[key] = self._traced(store[key], path, name, (*keys, key))
        return value


def _is_open(value: Any) -> bool:
    """Whether integers inside a value can be written in place: lists, dictionaries, plain objects with attributes."""
    kind = type(value)
    if kind in (list, dict):
        return True
    is_plain = not isinstance(value, (type, nn.Module, torch.Tensor)) and not callable(value)
    return is_plain and isinstance(getattr(value, "__dict__", None), dict) and not kind.__module__.startswith("torch")


def _store(holder: Any) -> Any:
    return holder if isinstance(holder, (list, dict)) else vars(holder)


def _item(holder: Any, key: Key) -> Any:
    return holder[int(key)] if isinstance(holder, tuple) else _store(holder)[key]


def _rebuilt(old: tuple[Any, ...], key: Key, value: Any) -> tuple[Any, ...]:
    items = list(old)
    items[int(key)] = value
    return _tuple_like(old, items)


def _tuple_like(old: tuple[Any, ...], items: Sequence[Any]) -> tuple[Any, ...]:
    make = getattr(type(old), "_make", None)  # of a named tuple
    return make(items) if make is not None else type(old)(items)
