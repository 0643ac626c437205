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
EQUAL_SEGMENTS = "number of equal segments"
MAX_CUTS = 64  # in one meeting of two sums; more are needed only where an axis meets itself at another offset


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


def is_pinned(space: Space) -> bool:
    """Whether nothing inside a space can be edited; an index by itself cannot."""
    node = resolve(space)
    if node.pin_reason is not None or node.size == 1:
        return True
    return bool(node._parts) and all(map(is_pinned, node._parts))


def _reason(space: Space) -> str:
    """Why a pinned space is pinned: its own reason, or that of the first part that has one."""
    reasons = (node.pin_reason for node in (resolve(space), *leaves(space)))
    return next((reason for reason in reasons if reason is not None), "divided into single indices")


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
    """Turns a leaf or a sum into a product that divides at ``major``; ``None`` where it has no such form.

    What is pinned never moves, so it gets no structure: it is divided anew wherever somebody looks at it.
    """
    if is_pinned(node):
        return [Space(size, _reason(node)) for size in (major, node.size // major)]
    if node._form == "sum":
        return _factor_sum(node, node.size // major) or _pair_segments(node, major)
    node._become("product", [Space(major), Space(node.size // major)])
    return list(node._parts)


def _factor_sum(node: Space, minor: int) -> list[Space] | None:
    """a*d + b*d is (a + b)*d, where every segment has, or takes, the same minor factor of size d."""
    pieces = segments(node)
    halves = [split_major([piece], piece.size // minor) if piece.size % minor == 0 else None for piece in pieces]
    found = [half for half in halves if half is not None]
    if len(found) < len(pieces):
        return None
    shared = product(found[0][1])
    for _, rest in found[1:]:
        unify(shared, product(rest))
    majors = [product(head) for head, _ in found]
    total = sum(major.size for major in majors)
    single = all(major.size == 1 for major in majors)
    node._become("product", [Space(total, EQUAL_SEGMENTS) if single else concatenation(majors), shared])
    return list(node._parts)


def _pair_segments(node: Space, major: int) -> list[Space] | None:
    """a + b + a + b is 2*(a + b), where the segments end at every multiple."""
    size, rest, pieces = node.size // major, segments(node), []
    while rest:
        piece = [rest.pop(0)]
        while sum(segment.size for segment in piece) < size and rest:
            piece.append(rest.pop(0))
        if sum(segment.size for segment in piece) != size:
            return None
        pieces.append(concatenation(piece))
    for other in pieces[1:]:
        unify(pieces[0], other)
    node._become("product", [Space(major, EQUAL_SEGMENTS), pieces[0]])
    return list(node._parts)


def cut(space: Space, offset: int) -> tuple[Space | None, Space | None]:
    """Cuts a space into the first ``offset`` indices and the rest; an empty side is ``None``."""
    node = resolve(space)
    if offset <= 0:
        return None, node
    if offset >= node.size:
        return node, None
    if is_pinned(node):
        return Space(offset, _reason(node)), Space(node.size - offset, _reason(node))
    if node._form == "leaf":
        node._become("sum", [Space(offset), Space(node.size - offset)])
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
    if a is b or a.size == b.size == 1:
        return
    if a.size != b.size:
        _conflict([a, b], f"sizes {a.size} and {b.size} meet")
    elif a._form == b._form == "leaf":
        _link(a, b)
    elif is_pinned(a) or is_pinned(b):
        pin(b if is_pinned(a) else a, _reason(a if is_pinned(a) else b))
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
        common = math.gcd(left[0].size, right[0].size)
        halves = split_major(left, common), split_major(right, common)
        if common == 1 or halves[0] is None or halves[1] is None:
            left, right = _skip_misaligned(left, right)
            continue
        unify(product(halves[0][0]), product(halves[1][0]))
        left, right = factors(halves[0][1]), factors(halves[1][1])


def _skip_misaligned(left: list[Space], right: list[Space]) -> tuple[list[Space], list[Space]]:
    """Pins the factors up to the next boundary that both lists have, and returns what is behind it."""
    left, right = factors(left), factors(right)
    run, ahead = [left[0]], left.pop(0).size
    behind = 1
    while ahead != behind:
        source = right if ahead > behind else left
        run.append(source.pop(0))
        if source is right:
            behind *= run[-1].size
        else:
            ahead *= run[-1].size
    _conflict(run, "factors " + " and ".join(str(node.size) for node in run) + " meet")
    return left, right


def _unify_sums(a: Space, b: Space) -> None:
    left, right, cuts = segments(a), segments(b), 0
    while left and right:
        left, right = [*segments(left[0]), *left[1:]], [*segments(right[0]), *right[1:]]
        x, y = left[0], right[0]
        if x.size == y.size:
            unify(x, y)
            left, right = left[1:], right[1:]
            continue
        if x.size > y.size:
            left, right, y = right, left, x
        cuts += 1
        if cuts > MAX_CUTS:
            _conflict([*left, *right], "an axis meets itself at another offset")
            return
        right = [s for s in cut(y, left[0].size) if s] + right[1:]


def _unify_mixed(whole: Space, total: Space) -> None:
    """A product meets a sum: the sum becomes a product where it has the factors for it."""
    major, *_ = factors([whole])
    pieces = segments(total)
    same = all(piece.size == pieces[0].size for piece in pieces)
    for size in dict.fromkeys([len(pieces), major.size] if same else [major.size]):
        halves = split_major([whole], size) if whole.size % size == 0 else None
        if halves is not None and _refine_major(total, size) is not None:
            _unify_products(product([whole]), total)
            return
    _conflict([whole, total], "a product meets a sum of other segments")


def _conflict(spaces: Iterable[Space], reason: str) -> None:
    for space in spaces:
        pin(space, f"conflict: {reason}")
