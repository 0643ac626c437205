"""What the sizes that code passes to operators must equal: one equation for every size in the user's forward.

``view(b, n, 3, self.num_heads, self.head_dim)`` says that ``num_heads`` is the size of the result's fourth dimension;
``split(x, self.width)`` that every piece has ``width`` indices. One function here reads the arguments of one family of
functions, before C++ takes the origin of the integers away.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from neuroexapt.graph.expressions import Arithmetic, Expression, Extent, Session, expression_of, product_of
from neuroexapt.graph.space import Space, factors, product, resolve, split_major

Pair = tuple[Expression, Expression]


@dataclass(frozen=True, slots=True)
class Equation:
    """Two expressions that must be equal for the forward to do what it did in the trace."""

    written: Expression
    needed: Expression
    where: str  # file and line in the user's code


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader of arguments needs: the spaces of tensors and the expressions of integers."""

    spaces: Callable[[Tensor], Sequence[Space] | None]
    session: Session

    def extents(self, tensor: Any) -> list[Expression] | None:
        """Returns the size of every dimension as an expression; ``None`` for a tensor that was not followed."""
        spaces = self.spaces(tensor) if isinstance(tensor, Tensor) else None
        return None if spaces is None else [extent(space) for space in spaces]

    def of(self, value: int) -> Expression:
        """Returns the expression of an integer."""
        return expression_of(value, self.session)


Arguments = tuple[Any, ...]
Options = dict[str, Any]
Reader = Callable[[Reading, Arguments, Options, Any], Iterator[Pair]]
READERS: dict[str, Reader] = {}


def extent(space: Space) -> Expression:
    """Returns the size of a space as an expression."""
    return 1 if space.size == 1 else Extent(space)


def _reads(*functions: str) -> Callable[[Reader], Reader]:
    def register(reader: Reader) -> Reader:
        for function in functions:
            READERS[function] = reader
        return reader

    return register


def _argument(args: Arguments, options: Options, index: int, name: str, default: Any = None) -> Any:
    return args[index] if len(args) > index else options.get(name, default)


def _integers(values: Sequence[Any]) -> list[int]:
    if len(values) == 1 and isinstance(values[0], (tuple, list)):
        values = values[0]
    return list(values) if all(isinstance(v, int) and not isinstance(v, bool) for v in values) else []


def _given(reading: Reading, sizes: Sequence[int], needed: Sequence[Expression] | None) -> Iterator[Pair]:
    """Pairs sizes with extents; -1 says nothing, and neither does a count that does not fit."""
    if needed is not None and len(sizes) == len(needed):
        for size, other in zip(sizes, needed, strict=True):
            if size != -1:
                yield reading.of(size), other


@_reads("view", "reshape", "expand", "broadcast_to", "new_zeros", "new_ones", "new_empty", "new_full")
def _shape_of_result(reading: Reading, args: Arguments, options: Options, result: Any) -> Iterator[Pair]:
    sizes = args[1:] or (options.get("shape", options.get("size", ())),)
    only_first = len(sizes) == 2 and isinstance(sizes[0], (tuple, list))  # new_full(size, value)
    yield from _given(reading, _integers(sizes[:1] if only_first else sizes), reading.extents(result))


@_reads("zeros", "ones", "empty", "rand", "randn")
def _created(reading: Reading, args: Arguments, options: Options, result: Any) -> Iterator[Pair]:
    yield from _given(reading, _integers(args or (options.get("size", ()),)), reading.extents(result))


@_reads("full", "arange")
def _created_from_first(reading: Reading, args: Arguments, options: Options, result: Any) -> Iterator[Pair]:
    is_range_from_zero = len(args) == 1 and not options.keys() & {"start", "end", "step"}
    if is_range_from_zero or (args and isinstance(args[0], (tuple, list))):
        yield from _given(reading, _integers(args[:1]), reading.extents(result))


@_reads("unflatten")
def _unflattened(reading: Reading, args: Arguments, options: Options, result: Any) -> Iterator[Pair]:
    sizes, extents = _integers([_argument(args, options, 2, "sizes", ())]), reading.extents(result)
    if extents is not None:
        start = _argument(args, options, 1, "dim") % (len(extents) - len(sizes) + 1)
        yield from _given(reading, sizes, extents[start : start + len(sizes)])


@_reads("repeat", "tile")
def _repeated(reading: Reading, args: Arguments, options: Options, result: Any) -> Iterator[Pair]:
    times, before, after = _integers(args[1:]), reading.extents(args[0]), reading.extents(result)
    if before is not None and after is not None and len(times) == len(after):
        padded = [1] * (len(after) - len(before)) + before
        for count, inner, outer in zip(times, padded, after, strict=True):
            yield product_of([reading.of(count), inner]), outer


@_reads("repeat_interleave")
def _interleaved(reading: Reading, args: Arguments, options: Options, result: Any) -> Iterator[Pair]:
    times, dim = _argument(args, options, 1, "repeats"), _argument(args, options, 2, "dim")
    before, after = reading.extents(args[0]), reading.extents(result)
    if isinstance(times, int) and dim is not None and before is not None and after is not None:
        yield product_of([reading.of(times), before[dim]]), after[dim]


@_reads("pad")
def _padded(reading: Reading, args: Arguments, options: Options, result: Any) -> Iterator[Pair]:
    pads, before, after = _argument(args, options, 1, "pad"), reading.extents(args[0]), reading.extents(result)
    if before is None or after is None or not isinstance(pads, (tuple, list)):
        return
    for index in range(len(pads) // 2):
        dim = len(after) - 1 - index
        both = Arithmetic("+", reading.of(pads[2 * index]), reading.of(pads[2 * index + 1]))
        yield Arithmetic("+", both, before[dim]), after[dim]


@_reads("split", "split_with_sizes")
def _split(reading: Reading, args: Arguments, options: Options, result: Any) -> Iterator[Pair]:
    sizes = _argument(args, options, 1, "split_size_or_sections", options.get("split_sizes", options.get("split_size")))
    yield from _pieces(reading, sizes, _argument(args, options, 2, "dim", 0), result)


@_reads("chunk")
def _chunked(reading: Reading, args: Arguments, options: Options, result: Any) -> Iterator[Pair]:
    count, dim = _argument(args, options, 1, "chunks"), _argument(args, options, 2, "dim", 0)
    extents, whole = [reading.extents(piece) for piece in result], reading.extents(args[0])
    if whole is None or extents[0] is None or not isinstance(count, int):
        return
    alike = [piece.shape[dim] == result[0].shape[dim] for piece in result]
    for is_alike, sizes in zip(alike, extents, strict=True):
        if is_alike and sizes is not None:
            yield extents[0][dim], sizes[dim]
    if not all(alike):  # the last piece is what the others leave
        rounded_up = Arithmetic("+", whole[dim], reading.of(count - 1))
        yield Arithmetic("//", rounded_up, reading.of(count)), extents[0][dim]


def _pieces(reading: Reading, sizes: Any, dim: int, result: Sequence[Tensor]) -> Iterator[Pair]:
    wanted = [sizes] * len(result) if isinstance(sizes, int) else list(sizes)
    for piece, size in zip(result, wanted, strict=False):
        extents = reading.extents(piece)
        if extents is not None and piece.shape[dim] == size:  # the last of a split by one size may be smaller
            yield reading.of(size), extents[dim]


@_reads("narrow")
def _narrowed(reading: Reading, args: Arguments, options: Options, result: Any) -> Iterator[Pair]:
    dim, start = _argument(args, options, 1, "dim"), _argument(args, options, 2, "start")
    extents, length = reading.extents(result), _argument(args, options, 3, "length")
    spaces = reading.spaces(args[0])
    if extents is not None and spaces is not None and isinstance(start, int):
        yield from _range(reading, spaces[dim], start, None, extents[dim])
        yield reading.of(length), extents[dim]


@_reads("__getitem__")
def _sliced(reading: Reading, args: Arguments, options: Options, result: Any) -> Iterator[Pair]:
    items = args[1] if isinstance(args[1], tuple) else (args[1],)
    spaces, after = reading.spaces(args[0]), reading.extents(result)
    is_plain = all(item is None or item is Ellipsis or isinstance(item, (slice, int)) for item in items)
    if spaces is None or after is None or not is_plain:
        return
    used = sum(isinstance(item, (slice, int)) for item in items)
    before_dim, after_dim = 0, 0
    for item in items:
        if isinstance(item, slice):
            is_range = item.step in (None, 1) and all(isinstance(x, (int, type(None))) for x in (item.start, item.stop))
            if is_range:
                yield from _range(reading, spaces[before_dim], item.start or 0, item.stop, after[after_dim])
        elif item is Ellipsis:
            before_dim, after_dim = before_dim + len(spaces) - used, after_dim + len(spaces) - used
            continue
        before_dim += item is not None
        after_dim += item is None or isinstance(item, slice)


def _range(reading: Reading, space: Space, start: int, stop: int | None, length: Expression) -> Iterator[Pair]:
    """A slice: what lies before it has ``start`` indices, and it ends at ``stop``."""
    size = space.size
    prefix = _before(space, start + size if start < 0 else start)
    if prefix is None:
        return
    yield _from_end(reading, start, space), prefix
    if stop is not None and 0 < (stop + size if stop < 0 else stop) <= size:
        yield _from_end(reading, stop, space), length if prefix == 0 else Arithmetic("+", prefix, length)


def _before(space: Space, offset: int) -> Expression | None:
    """The size of the part of a space before an index, where the index is a boundary inside the space."""
    node = resolve(space)
    if offset == 0 or offset == node.size:
        return extent(node) if offset else 0
    if node.form == "sum":
        behind, sizes = offset, []
        for part in node.parts:
            inner = _before(part, min(behind, resolve(part).size))
            if inner is None:
                return None
            sizes.append(inner)
            behind -= min(behind, resolve(part).size)
        return functools.reduce(lambda a, b: Arithmetic("+", a, b) if b != 0 else a, sizes)
    major, *minor = factors([node])
    block = math.prod(factor.size for factor in minor)
    inner = _before(major, offset // block) if minor and offset % block == 0 else None
    return None if inner is None else product_of([inner, *map(extent, minor)])


def _from_end(reading: Reading, index: int, space: Space) -> Expression:
    expression = reading.of(index)
    return Arithmetic("+", extent(space), expression) if index < 0 else expression


@_reads("layer_norm", "rms_norm")
def _normalised(reading: Reading, args: Arguments, options: Options, result: Any) -> Iterator[Pair]:
    shape, extents = _integers([_argument(args, options, 1, "normalized_shape", ())]), reading.extents(args[0])
    if extents is not None and shape:
        yield from _given(reading, shape, extents[-len(shape) :])


@_reads("group_norm")
def _grouped(reading: Reading, args: Arguments, options: Options, result: Any) -> Iterator[Pair]:
    spaces = reading.spaces(args[0])
    yield from _counted(reading, _argument(args, options, 1, "num_groups"), spaces[1] if spaces else None)


@_reads("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _convolved(reading: Reading, args: Arguments, options: Options, result: Any) -> Iterator[Pair]:
    weight = reading.spaces(_argument(args, options, 1, "weight"))
    yield from _counted(reading, _argument(args, options, 6, "groups", 1), weight[0] if weight else None)


def _counted(reading: Reading, count: Any, space: Space | None) -> Iterator[Pair]:
    """A number of groups: the major factor of a space."""
    halves = split_major([space], int(count)) if space is not None and isinstance(count, int) and count > 1 else None
    if halves is not None:
        yield reading.of(count), extent(product(halves[0]))


@_reads("multi_head_attention_forward")
def _attended(reading: Reading, args: Arguments, options: Options, result: Any) -> Iterator[Pair]:
    """``embed_dim == num_heads * head_dim``, which torch's own attention demands."""
    query, embed_dim, num_heads = reading.extents(args[0]), args[3], args[4]
    rows = reading.spaces(args[5]) if args[5] is not None else reading.spaces(options["q_proj_weight"])
    if query is None or rows is None:
        return
    yield reading.of(embed_dim), query[-1]
    thirds = split_major([rows[0]], 3) if args[5] is not None else ([], [rows[0]])
    halves = split_major(thirds[1], int(num_heads)) if thirds is not None else None
    if halves is not None:
        head_dim = extent(product(halves[1]))
        yield reading.of(num_heads), extent(product(halves[0]))
        yield Arithmetic("//", reading.of(embed_dim), reading.of(num_heads)), head_dim
        yield Arithmetic("*", reading.of(num_heads), head_dim), reading.of(embed_dim)
