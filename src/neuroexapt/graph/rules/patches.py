"""Rearrangements between channels and positions, and padding."""

from __future__ import annotations

from neuroexapt.graph.rules.halves import halved
from neuroexapt.graph.rules.registry import Dims, rule
from neuroexapt.graph.space import Space, concatenation, cut, is_pinned, pin, product, split_major
from neuroexapt.graph.values import Call, NotUnderstood, fresh

_EXTENT = "spatial extent"


def _positions(call: Call, first: int) -> list[Space]:
    return [fresh(int(size), _EXTENT) for size in call.out.shape[first:]]


def _major(call: Call, space: Space, size: int, why: str) -> tuple[Space, Space]:
    """Divides an axis into a major part of a size and a minor part, and pins the minor part."""
    major, minor = halved(call, space, size)
    call.pins([minor], why)
    return major, minor


@rule("im2col")
def im2col(call: Call) -> Dims:
    """[..., C, H, W] -> [..., C * kernel, positions]."""
    dims = call.dims(call["self"])
    call.pins(dims[-2:], _EXTENT)
    kernel = fresh(int(call.out.shape[-2]) // dims[-3].size, "the kernel's extent")
    return [*dims[:-3], product([dims[-3], kernel]), *_positions(call, call.out.dim() - 1)]


@rule("col2im")
def col2im(call: Call) -> Dims:
    """[..., C * kernel, positions] -> [..., C, H, W]."""
    dims = call.dims(call["self"])
    channels, _ = _major(call, dims[-2], int(call.out.shape[-3]), "the kernel's extent")
    call.pins(dims[-1:], _EXTENT)
    return [*dims[:-2], channels, *_positions(call, call.out.dim() - 2)]


@rule("pixel_shuffle")
def pixel_shuffle(call: Call) -> Dims:
    """[..., C * r * r, H, W] -> [..., C, H * r, W * r] (Shi et al. 2016)."""
    dims = call.dims(call["self"])
    channels, _ = _major(call, dims[-3], int(call.out.shape[-3]), "pixels inside a channel")
    call.pins(dims[-2:], _EXTENT)
    return [*dims[:-3], channels, *_positions(call, call.out.dim() - 2)]


@rule("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Dims:
    """[..., C, H * r, W * r] -> [..., C * r * r, H, W]."""
    dims = call.dims(call["self"])
    call.pins(dims[-2:], _EXTENT)
    pixels = fresh(int(call.out.shape[-3]) // dims[-3].size, "pixels inside a channel")
    return [*dims[:-3], product([dims[-3], pixels]), *_positions(call, call.out.dim() - 2)]


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call) -> Dims:
    """Channels (groups, rest) become (rest, groups) (Zhang et al. 2018)."""
    dims = list(call.dims(call["self"]))
    count, rest = halved(call, dims[1], call["groups"])
    call.pins([count], "the number of groups is written in the code")
    dims[1] = product([rest, count])
    return dims


@rule("constant_pad_nd")
def constant_pad(call: Call) -> Dims:
    """The same value before and behind a dimension: segments of any order; a negative width cuts off."""
    dims, pad = list(call.dims(call["self"])), call["pad"]
    for place in range(len(pad) // 2):
        dim = len(dims) - 1 - place
        before, behind = int(pad[2 * place]), int(pad[2 * place + 1])
        dims[dim] = _padded(dims[dim], before, behind)
    return dims


def _padded(space: Space, before: int, behind: int) -> Space:
    if not before and not behind:
        return space
    if is_pinned(space):
        return fresh(space.size + before + behind, "padding of a pinned axis")
    kept: Space | None = space
    if before < 0:
        _, kept = cut(space, -before)
    if behind < 0 and kept is not None:
        kept, _ = cut(kept, kept.size + behind)
    if kept is None:
        raise NotUnderstood("nothing is left between the paddings")
    parts = [Space(before)] if before > 0 else []
    parts += [kept, *([Space(behind)] if behind > 0 else [])]
    return concatenation(parts)


@rule("unfold")
def windows(call: Call) -> Dims:
    """Windows of one dimension, which stand in a new last dimension; windows that meet exactly are a product."""
    dims = list(call.dims(call["self"]))
    dim = call["dimension"] % len(dims)
    size, step = call["size"], call["step"]
    halves = split_major([dims[dim]], dims[dim].size // size) if size == step and not dims[dim].size % size else None
    if halves is not None:
        dims[dim] = product(halves[0])
        return [*dims, product(halves[1])]
    pin(dims[dim], "windows that overlap")
    dims[dim] = fresh(int(call.out.shape[dim]), "windows that overlap")
    return [*dims, fresh(size, "windows that overlap")]
