"""Index spaces: what one dimension of a tensor runs over.

A space is a *leaf* (a bare set of indices), a *product* (row-major: ``flatten`` of C, H, W) or a *sum* (segments laid
end to end: ``cat`` of a and b). Spaces that must be permuted and resized together are one space: ``unify`` merges them
(union-find) and refines them where one side knows more structure than the other, so that ``view(C, H)`` of a leaf turns
that leaf, for everybody who holds it, into a product. What cannot be reconciled is *pinned* with a reason: a pinned
space is never edited, so the algebra fails closed.

Sizes are positive integers. A space of size 1 carries no information (it may be a broadcast) and is never merged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Form = Literal["leaf", "product", "sum"]


@dataclass(frozen=True, slots=True)
class Reader:
    """An operation whose result mixes the units of a space, so that adding units changes it for all of them."""

    operator: str  # e.g. "aten.native_layer_norm"
    module: str  # path of the module that called it, "" for the model itself

    def __str__(self) -> str:
        return f"{self.operator} in {self.module or 'the model'}"


class Space:
    """A node of the union-find. Read it through ``resolve``; memory: a few words each, one per tensor dimension."""

    __slots__ = ("_form", "_link", "_parts", "pin_reason", "readers", "size")

    def __init__(self, size: int, pin_reason: str | None = None) -> None:
        self.size = int(size)
        self.pin_reason = pin_reason
        self.readers: set[Reader] = set()
        self._form: Form = "leaf"
        self._parts: tuple[Space, ...] = ()
        self._link: Space | None = None

    @property
    def form(self) -> Form:
        """Leaf, product or sum."""
        return resolve(self)._form

    @property
    def parts(self) -> tuple[Space, ...]:
        """The factors (major first) or segments (first to last); empty for a leaf."""
        return resolve(self)._parts

    def _become(self, form: Form, parts: Iterable[Space]) -> None:
        self._form, self._parts = form, tuple(parts)
        for part in self._parts:
            if self.pin_reason is not None:
                pin(part, self.pin_reason)
            for reader in self.readers:
                mark(part, reader)

    def __repr__(self) -> str:
        node = resolve(self)
        if node._form == "leaf":
            return f"{node.size}" + ("!" if node.pin_reason else "")
        joiner = "x" if node._form == "product" else "+"
        return "(" + joiner.join(map(repr, node._parts)) + ")"


def resolve(space: Space) -> Space:
    """Returns the representative of a space (with path compression)."""
    root = space
    while root._link is not None:
        root = root._link
    while space._link is not None:
        space._link, space = root, space._link
    return root


def pin(space: Space, reason: str) -> None:
    """Forbids editing the space and everything inside it; the first reason stays."""
    node = resolve(space)
    if node.pin_reason is None:
        node.pin_reason = reason
    for part in node._parts:
        if resolve(part).pin_reason is None:
            pin(part, reason)


def mark(space: Space, reader: Reader) -> None:
    """Notes that an operation reads across the space."""
    node = resolve(space)
    node.readers.add(reader)
    for part in node._parts:
        if reader not in resolve(part).readers:
            mark(part, reader)


def factors(spaces: Iterable[Space]) -> list[Space]:
    """Flattens products into their factors, major first, and drops spaces of size 1."""
    result: list[Space] = []
    for space in spaces:
        node = resolve(space)
        if node._form == "product":
            result += factors(node._parts)
        elif node.size != 1:
            result.append(node)
    return result


def product(spaces: Sequence[Space]) -> Space:
    """The row-major product of spaces; a single factor is returned as it is."""
    flat = factors(spaces)
    if not flat:
        return Space(1)
    if len(flat) == 1:
        return flat[0]
    result = Space(math.prod(f.size for f in flat))
    result._become("product", flat)
    return result


def segments(space: Space) -> list[Space]:
    """Flattens sums into their segments, first to last."""
    node = resolve(space)
    if node._form != "sum":
        return [node]
    return [segment for part in node._parts for segment in segments(part)]


def concatenation(spaces: Sequence[Space]) -> Space:
    """The sum of spaces; a single one is returned as it is."""
    if len(spaces) == 1:
        return resolve(spaces[0])
    result = Space(sum(resolve(s).size for s in spaces))
    result._become("sum", spaces)
    return result


def leaves(space: Space) -> list[Space]:
    """All leaves inside a space, in order, each as often as it occurs."""
    node = resolve(space)
    if node._form == "leaf":
        return [node]
    return [leaf for part in node._parts for leaf in leaves(part)]


def split_major(spaces: Sequence[Space], size: int) -> tuple[list[Space], list[Space]] | None:
    """Splits a factor list into a major part of ``size`` indices and the rest, refining where a factor straddles.

    Returns ``None`` where the boundary falls inside a factor that cannot be divided there.
    """
    rest, head, remaining = factors(spaces), [], size
    while remaining != 1:
        if not rest:
            return None
        first = rest[0]
        if remaining % first.size == 0:
            head.append(rest.pop(0))
            remaining //= first.size
        elif first.size % remaining == 0:
            refined = _refine_major(first, remaining)
            if refined is None:
                return None
            rest = factors(refined) + rest[1:]
        else:
            return None
    return head, rest


def _refine_major(node: Space, major: int) -> list[Space] | None:
    """Turns a leaf, or a sum of equal segments, into a product whose major factor divides at ``major``."""
    if node._form == "leaf":
        node._become("product", _inherit(node, [major, node.size // major]))
        return list(node._parts)
    pieces = segments(node)
    if any(piece.size != pieces[0].size for piece in pieces):
        return None
    if len(pieces) % major != 0 and major % len(pieces) != 0:
        return None
    for piece in pieces[1:]:
        unify(pieces[0], piece)
    count = Space(len(pieces), "number of equal segments")
    node._become("product", [count, resolve(pieces[0])])
    return list(node._parts)


def _inherit(node: Space, sizes: Sequence[int]) -> list[Space]:
    return [Space(size, node.pin_reason) for size in sizes]


def cut(space: Space, offset: int) -> tuple[Space | None, Space | None]:
    """Cuts a space into the first ``offset`` indices and the rest; an empty side is ``None``."""
    node = resolve(space)
    if offset <= 0:
        return None, node
    if offset >= node.size:
        return node, None
    if node._form == "leaf":
        node._become("sum", _inherit(node, [offset, node.size - offset]))
        return node._parts[0], node._parts[1]
    if node._form == "sum":
        return _cut_sum(node, offset)
    major, *minor = factors([node])
    minor_size = math.prod(f.size for f in minor)
    if offset % minor_size == 0:
        left, right = cut(major, offset // minor_size)
        if left is not None and right is not None:
            return product([left, *minor]), product([right, *minor])
    reason = f"cut at {offset}, inside a block of {minor_size}"
    pin(node, reason)
    return Space(offset, reason), Space(node.size - offset, reason)


def _cut_sum(node: Space, offset: int) -> tuple[Space | None, Space | None]:
    left: list[Space] = []
    right = list(node._parts)
    while right and offset >= resolve(right[0]).size:
        offset -= resolve(right[0]).size
        left.append(right.pop(0))
    if offset:
        first, second = cut(right.pop(0), offset)
        left += [first] if first else []
        right = ([second] if second else []) + right
    return concatenation(left), concatenation(right)


def unify(first: Space, second: Space) -> None:
    """Makes two spaces one; what cannot be reconciled is pinned on both sides."""
    a, b = resolve(first), resolve(second)
    if a is b:
        return
    if a.size != b.size:
        _conflict([a, b], f"sizes {a.size} and {b.size} meet")
    elif a._form == "leaf" or b._form == "leaf":
        leaf, other = (a, b) if a._form == "leaf" else (b, a)
        if leaf in _nodes_inside(other):
            _conflict([a, b], "a space contains itself")
        else:
            _link(leaf, other)
    elif a._form == b._form == "sum":
        _unify_sums(a, b)
    elif a._form == b._form == "product":
        _unify_products(a, b)
    else:
        _unify_mixed(*((a, b) if a._form == "product" else (b, a)))


def _link(leaf: Space, other: Space) -> None:
    leaf._link = other
    if leaf.pin_reason is not None:
        pin(other, leaf.pin_reason)
    for reader in leaf.readers:
        mark(other, reader)


def _nodes_inside(space: Space) -> set[Space]:
    node = resolve(space)
    return {node}.union(*(_nodes_inside(part) for part in node._parts))


def _unify_products(a: Space, b: Space) -> None:
    left, right = factors([a]), factors([b])
    while left and right:
        x, y = left[0], right[0]
        if x.size == y.size:
            unify(x, y)
            left, right = left[1:], right[1:]
            continue
        small = min(x.size, y.size)
        common = small if max(x.size, y.size) % small == 0 else math.gcd(x.size, y.size)
        split_left, split_right = split_major(left, common), split_major(right, common)
        if common == 1 or split_left is None or split_right is None:
            _conflict([*left, *right], f"factors {x.size} and {y.size} meet")
            return
        unify(product(split_left[0]), product(split_right[0]))
        left, right = factors(split_left[1]), factors(split_right[1])


def _unify_sums(a: Space, b: Space) -> None:
    left, right = list(a._parts), list(b._parts)
    while left and right:
        x, y = resolve(left[0]), resolve(right[0])
        if x.size == y.size:
            unify(x, y)
            left, right = left[1:], right[1:]
        elif x.size < y.size:
            head, tail = cut(y, x.size)
            right = [s for s in (head, tail) if s] + right[1:]
        else:
            head, tail = cut(x, y.size)
            left = [s for s in (head, tail) if s] + left[1:]


def _unify_mixed(whole: Space, total: Space) -> None:
    """A product meets a sum: k equal segments of d are the product of (k, d)."""
    pieces = segments(total)
    if all(piece.size == pieces[0].size for piece in pieces):
        halves = split_major([whole], len(pieces))
        if halves is not None:
            minor = product(halves[1])
            pin(product(halves[0]), "number of equal segments")
            for piece in pieces:
                unify(piece, minor)
            return
    _conflict([whole, total], "a product meets a sum of unequal segments")


def _conflict(spaces: Iterable[Space], reason: str) -> None:
    for space in spaces:
        pin(space, f"conflict: {reason}")
