"""From new sizes of axes to edits of tensors: silent units, copies, and what must be rescaled for either.

One function for every mutation that makes an axis longer; which way an axis grows is the graph's answer (``growth``),
unless the mutation says for some axes how their units begin (``Units``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import (
    NEW,
    Copies,
    Maker,
    ModelGraph,
    Resizing,
    Role,
    Silent,
    Space,
    canonical_names,
    division,
    is_freeable,
    leaves,
    region,
    resolve,
    scaling,
)
from neuroexapt.graph import resized as size_of
from neuroexapt.surgery.growth.units import UNEVEN, Units, positions
from neuroexapt.surgery.mutation import draw_seed
from neuroexapt.surgery.plan import Fill, TensorEdit, fill_for
from neuroexapt.surgery.writing.gather import edited
from neuroexapt.surgery.writing.masks import is_mask


@dataclass
class _Changes:
    """What is known so far of the new tensors, by parameter; masks and factors broadcast to the new shapes."""

    silent: dict[str, list[Tensor]] = field(default_factory=dict)
    factors: dict[str, list[Tensor]] = field(default_factory=dict)
    heard: set[tuple[str, int]] = field(default_factory=set)  # dimensions that read new units with random entries
    twins: dict[str, list[Twins]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Twins:
    """Indices of one dimension whose entries repeat those of others."""

    dim: int
    indices: Tensor
    origins: Tensor


_SILENT: Mapping[Space, Units] = MappingProxyType({})


def tensor_edits(
    graph: ModelGraph, resizing: Resizing, generator: torch.Generator, begin: Mapping[Space, Units] = _SILENT
) -> tuple[TensorEdit, ...]:
    """Returns the edits of all parameters and buffers that make some axes longer and preserve the function.

    Args:
        graph: The model.
        resizing: The new sizes, larger than the old ones.
        generator: Of the seeds of random entries and of the shares of copies.
        begin: How the units of some axes begin; of the others silently, or where that is impossible as even copies.

    Raises:
        SurgeryError: An axis cannot grow to its new size without changing the function.
    """
    maps: dict[Space, Tensor] = {}
    changes = _Changes()
    for leaf, size in resizing.sizes.items():
        found = graph.growth(leaf)
        if isinstance(found, str):
            raise SurgeryError(found)
        if leaf in begin:
            maps[leaf] = begin[leaf].sources
            _divide(graph, leaf, begin[leaf], resizing.sizes, changes)
            continue
        maps[leaf] = _units(leaf, size, found)
        if isinstance(found, Silent):
            for path, mask in _regions(graph, found.zeros, resizing.sizes).items():
                changes.silent.setdefault(path, []).append(mask)
        else:
            _rescale_readers(graph, leaf, found, resizing.sizes, generator, changes)
    _rescale_makers(graph, resizing, changes)
    return _edits(graph, maps, changes, generator)


def freed_attention(graph: ModelGraph, sizes: Mapping[Space, int]) -> tuple[str, ...]:
    """Returns the attention modules whose heads no longer make up the width that torch's own forward demands."""
    paths, names = [], canonical_names(graph.model)
    for path, module in graph.model.named_modules():
        if is_freeable(module):
            rows, columns = graph.parameters[names[id(module.in_proj_weight)]].dims
            if size_of(rows, sizes) != 3 * size_of(columns, sizes):
                paths.append(path)
    return tuple(paths)


def _units(leaf: Space, size: int, growth: Silent | Copies) -> Tensor:
    if isinstance(growth, Silent):
        return torch.cat([torch.arange(leaf.size), torch.full((size - leaf.size,), NEW)])
    if size % leaf.size:
        raise SurgeryError(
            f"something reads across the axis, so its {leaf.size} units can only be copied, all equally often; "
            f"{size} is no multiple of {leaf.size}"
        )
    return torch.arange(leaf.size).repeat(size // leaf.size)


def _divide(graph: ModelGraph, leaf: Space, units: Units, sizes: Mapping[Space, int], changes: _Changes) -> None:
    """What reads a unit is multiplied by the unit's share; twins get equal entries."""
    found = division(graph.tape, leaf)
    if isinstance(found, str):
        raise SurgeryError(f"{found}, so a unit cannot be divided among copies")
    if found.makers and units.twins is not None:
        raise SurgeryError("its units are multiplied with other activations, which pairs of opposite sign cannot be")
    for path, value in graph.parameters.items():
        for dim, space in enumerate(value.dims):
            if leaf not in leaves(space):
                continue
            if (path, dim) in found.readers:
                changes.factors.setdefault(path, []).append(_along(graph, path, dim, leaf, units.shares, sizes))
            if units.twins is not None:
                if set(leaves(space)) & (set(sizes) - {leaf}):
                    raise SurgeryError(f"another axis grows with it in {path}, which leaves pairs no exact place")
                if (path, dim) in found.readers:
                    changes.heard.add((path, dim))
                ids = positions(space, leaf, sizes)
                indices, origins = units.twins.of(ids)
                changes.twins.setdefault(path, []).append(Twins(dim, indices, origins))
    _divide_makers(graph, leaf, found.makers, units.shares, sizes, changes)


def _divide_makers(
    graph: ModelGraph,
    leaf: Space,
    makers: Iterable[Maker],
    shares: Tensor,
    sizes: Mapping[Space, int],
    changes: _Changes,
) -> None:
    for path, mask in _regions(graph, makers, sizes).items():
        holding = [dim for dim, space in enumerate(graph.parameters[path].dims) if leaf in leaves(space)]
        if len(holding) != 1:
            raise SurgeryError(f"{path} holds the axis twice, so it cannot hold the shares of its units")
        factor = torch.where(mask, _along(graph, path, holding[0], leaf, shares, sizes), 1.0)
        changes.factors.setdefault(path, []).append(factor)


def _along(graph: ModelGraph, path: str, dim: int, leaf: Space, values: Tensor, sizes: Mapping[Space, int]) -> Tensor:
    """Returns one value for every unit as a tensor that broadcasts to the new shape of a parameter."""
    dims = graph.parameters[path].dims
    shape = [1] * len(dims)
    shape[dim] = -1
    return _spread(dims[dim], leaf, values, sizes).view(shape)


def _rescale_readers(
    graph: ModelGraph,
    leaf: Space,
    growth: Copies,
    sizes: Mapping[Space, int],
    generator: torch.Generator,
    changes: _Changes,
) -> None:
    """Each reading entry is shared among the copies of its unit."""
    count = sizes[leaf] // leaf.size
    for (path, dim), power in growth.powers.items():
        shares = _shares(count, leaf.size, generator) * count ** (1 + float(power))
        changes.factors.setdefault(path, []).append(_along(graph, path, dim, leaf, shares.flatten(), sizes))


def _shares(count: int, units: int, generator: torch.Generator) -> Tensor:
    """Returns float64 ``[count, units]`` that sum to 1 over the copies."""
    noise = torch.rand(count, units, generator=generator, dtype=torch.float64) - 0.5
    return (1 + 2 * UNEVEN * (noise - noise.mean(0))) / count


def _spread(space: Space, leaf: Space, values: Tensor, sizes: Mapping[Space, int]) -> Tensor:
    """Returns one value for every index of a dimension: that of its unit, 1 where it has none."""
    if resolve(space) is leaf:
        return values
    if not space.parts:
        return torch.ones(size_of(space, sizes), dtype=torch.float64)
    parts = [_spread(part, leaf, values, sizes) for part in space.parts]
    if space.form == "sum":
        return torch.cat(parts)
    result = torch.ones(1, dtype=torch.float64)
    for part in parts:
        result = (result[:, None] * part[None, :]).flatten()
    return result


def _rescale_makers(graph: ModelGraph, resizing: Resizing, changes: _Changes) -> None:
    """Takes back what the new sizes multiply: sums over copies, and scales that the code computes from sizes.

    An operand that several products share is left alone where the other operands can be rescaled.
    """
    wanted: list[tuple[tuple[int, ...], float]] = []
    read: list[frozenset[Maker]] = []
    for leaf, size in resizing.sizes.items():
        found = graph.growth(leaf)
        if isinstance(found, Copies):
            read += [scaling(graph.tape, n) for n in found.read]
            wanted += [(repair.tensors, (size // leaf.size) ** float(repair.power)) for repair in found.repairs]
    for scale in resizing.scales:
        wanted.append((graph.tape.operations[scale.index].inputs[:1], 1 / scale.ratio))
    choices = [[makers for n in tensors if (makers := scaling(graph.tape, n))] for tensors, _ in wanted]
    for index, (_, factor) in enumerate(wanted):
        others = [*read, *(makers for i, choice in enumerate(choices) if i != index for makers in choice)]
        apart = [makers for makers in choices[index] if not any(makers & other for other in others)]
        if not choices[index]:
            raise SurgeryError(f"an operand of a product would have to be multiplied by {factor:.3g}, but nothing can")
        for path, mask in _regions(graph, (apart or choices[index])[0], resizing.sizes).items():
            factors = torch.where(mask, torch.tensor(factor, dtype=torch.float64), 1.0)
            changes.factors.setdefault(path, []).append(factors)


def _regions(graph: ModelGraph, makers: Iterable[Maker], sizes: Mapping[Space, int]) -> dict[str, Tensor]:
    """Returns the entries that the makers name, by parameter, as masks that broadcast to the new shapes."""
    masks: dict[str, Tensor] = {}
    for maker in makers:
        mask = region(graph.parameters[maker.parameter].dims, maker.picks, sizes)
        if mask is None:
            raise SurgeryError(f"{maker.parameter}: the part of it that makes one operand of a product is unclear")
        masks[maker.parameter] = masks[maker.parameter] | mask if maker.parameter in masks else mask
    return masks


def _edits(
    graph: ModelGraph, units: Mapping[Space, Tensor], changes: _Changes, generator: torch.Generator
) -> tuple[TensorEdit, ...]:
    edits = []
    for path in graph.parameters:
        maps = graph.sources(path, units)
        factors = changes.factors.get(path, [])
        if not factors and all(m is None for m in maps):
            continue
        has_new = {dim for dim, m in enumerate(maps) if m is not None and bool((m == NEW).any())}
        roles: dict[int, set[Role]] = {dim: graph.roles.get((path, dim), set()) for dim in has_new}
        roles |= {dim: {Role.PRODUCE} for dim in has_new if (path, dim) in changes.heard}
        silent = changes.silent.get(path, [])
        fill = fill_for(roles, draw_seed(generator))
        if is_mask(path, graph.parameters):
            fill = Fill("ones")
        edit = TensorEdit(path, maps, fill, silent=tuple(silent), factors=tuple(factors))
        if path in changes.twins:
            edit = replace(edit, rewrite=partial(_with_twins, edit, tuple(changes.twins[path])))
        edits.append(edit)
    return tuple(edits)


def _with_twins(edit: TensorEdit, twins: tuple[Twins, ...], tensors: Mapping[str, Tensor]) -> Tensor:
    result = edited(tensors[edit.path], replace(edit, factors=()))
    for pair in twins:
        origins = pair.origins.to(result.device)
        result = result.index_copy(pair.dim, pair.indices.to(result.device), result.index_select(pair.dim, origins))
    for factor in edit.factors:
        result = result * factor.to(device=result.device, dtype=result.dtype)
    return result
