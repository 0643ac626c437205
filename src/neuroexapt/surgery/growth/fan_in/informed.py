"""Informed new units: incoming weights that answer what the loss asks for and the axis does not span yet.

What the readers' outputs z lack is their gradient G = dL/dz; what the axis's own activations H can express of it needs
no new unit. Left is the residual R = G - P G with P the projection onto H and 1. A unit with activations a is worth

    |a' R|^2 / |a|^2    with a projected out of H too,

what it adds to the decrease of the loss along the steepest descent (the expansion score of Mitchell et al. 2023, SENN,
with the identity for the Fisher information). Candidates are random units at the layer's own root mean square and,
where the maker's and the reader's positions agree, both signs of the leading directions of R' X for the maker's inputs
X (as in Verbockhaven et al. 2024, TINY). They are evaluated in a copy of the model through whatever lies between, and
chosen greedily, each projected out before the next. A convolution's unit has as many columns as taps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ChannelGroup, ModelGraph, named_tensors
from neuroexapt.surgery.checking.measure import Measured, measure
from neuroexapt.surgery.checking.structure import edited_twin
from neuroexapt.surgery.growth.fan_in.layers import (
    check_reached,
    columns,
    layer_at,
    maker_of,
    num_affordable,
    positions_of,
    readers_of,
    taps,
)
from neuroexapt.surgery.growth.units import indices_of, positions
from neuroexapt.surgery.growth.widening import grown
from neuroexapt.surgery.plan import Plan, TensorEdit
from neuroexapt.surgery.writing.gather import edited

POOL = 4  # candidates a new unit, up to MAX_POOL
MAX_POOL = 512
MAX_ROWS = 1024  # positions of the calibration data that are looked at
MAX_TAPS = 32  # columns of a candidate that are looked at
ROUNDS = 32  # of greedy choice; several units are chosen at once where there are more


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What one reader sees, all projected out of what it sees of the old units.

    Attributes:
        candidates: float64 ``[candidates, rows, taps]``.
        residual: float64 ``[rows, out]``.
    """

    candidates: Tensor
    residual: Tensor


def informed(graph: ModelGraph, group: ChannelGroup, to: int, plan: Plan, generator: torch.Generator) -> Plan:
    """Gives the new units of a plan the incoming weights of the best candidates.

    Args:
        graph: With an objective.
        group: The axis that grows.
        to: Its new size.
        plan: Grows it silently.
        generator: Of the candidates.

    Raises:
        SurgeryError: Something else than linear layers and plain convolutions reads the axis, or another axis grows
            with it.
    """
    readers, new = readers_of(graph, group), to - group.size
    pool = graph.size_from(group, group.size + max(new, min(POOL * new, MAX_POOL)))
    sizes = graph.resizing({group.leaf: pool}).sizes
    if len(sizes) > 1:
        raise SurgeryError("other axes grow with it")
    twin = edited_twin(graph, grown(graph, group, pool, generator))
    _add_directions(graph, group, twin, readers, pool)
    seen = measure(graph, readers, gradients=True, model=twin)
    check_reached(seen, readers)
    views = [_view(graph, group, path, seen, pool) for path in readers]
    chosen = [group.size + index for index in best(views, new)]
    tensors, read = named_tensors(twin), {(f"{path}.weight", 1) for path in readers}
    edits = []
    for edit in plan.tensors:
        for dim, space in enumerate(graph.parameters[edit.path].dims):
            source = indices_of(positions(space, group.leaf, sizes), chosen) if edit.maps[dim] is not None else None
            if source is not None and len(source) and (edit.path, dim) not in read:
                target = indices_of(positions(space, group.leaf, {group.leaf: to}), range(group.size, to))
                values = tensors[edit.path].detach().index_select(dim, source.to(tensors[edit.path].device))
                for other, held in enumerate(graph.parameters[edit.path].dims):
                    if other != dim and edit.maps[other] is not None:  # a square layer holds the axis twice
                        ids = positions(held, group.leaf, sizes)
                        kept = _of_units(ids, positions(held, group.leaf, {group.leaf: to}), group.size, chosen)
                        values = values.index_select(other, kept.to(values.device))
                edit = replace(edit, rewrite=partial(_with_units, edit, dim, target, values))
        edits.append(edit)
    return replace(plan, tensors=tuple(edits))


def best(views: Sequence[View], count: int) -> list[int]:
    """Chooses candidates greedily by the summed worth over all readers, each projected out before the next."""
    chosen: list[int] = []
    at_once = -(-count // ROUNDS)
    while len(chosen) < count:
        worth = torch.stack([_worth(view) for view in views]).sum(0)
        worth[chosen] = -1
        found = worth.topk(min(at_once, count - len(chosen))).indices.tolist()
        chosen += found
        views = [_without(view, found) for view in views]
    return chosen


def _worth(view: View) -> Tensor:
    """Returns ``[candidates]``: the part of the residual's square that lies in the span of a candidate's columns."""
    shifted = view.candidates.transpose(1, 2)
    gram = shifted @ view.candidates
    scale = gram.diagonal(dim1=1, dim2=2).mean(1)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    tiny = torch.finfo(gram.dtype).tiny ** 0.5
    asked = shifted @ view.residual
    answer = torch.linalg.solve(gram + (1e-6 * scale + tiny)[:, None, None] * eye, asked)
    worth: Tensor = (asked * answer).sum((1, 2))
    return worth


def _without(view: View, found: Sequence[int]) -> View:
    basis = torch.linalg.qr(view.candidates[list(found)].transpose(0, 1).flatten(1))[0]
    return View(
        view.candidates - basis @ (basis.T @ view.candidates), view.residual - basis @ (basis.T @ view.residual)
    )


def spanned(activations: Tensor) -> Tensor:
    """Returns an orthonormal basis ``[rows, k]`` of the columns and 1; at most half as many as rows, leading first.

    So that something is left to ask for where there are more columns than rows.
    """
    whole = torch.cat([activations, torch.ones_like(activations[:, :1])], 1)
    if whole.shape[1] < len(whole):
        vectors, values, _ = torch.linalg.svd(whole, full_matrices=False)
    else:
        squares, vectors = torch.linalg.eigh(whole @ whole.T)
        vectors, values = vectors.flip(1), squares.flip(0).clamp_min(0).sqrt()
    kept = values > values[0] * torch.finfo(values.dtype).eps ** 0.5
    basis: Tensor = vectors[:, kept][:, : len(whole) // 2]
    return basis


def _view(graph: ModelGraph, group: ChannelGroup, path: str, seen: Measured, pool: int) -> View:
    layer = layer_at(graph, path)
    gradient = seen.output_gradients[path]
    samples = min(len(gradient), len(seen.inputs[path]), num_affordable(layer, gradient))
    read = _few(columns(layer, seen.inputs[path][:samples]))
    residual = _few(positions_of(layer, gradient[:samples]))
    space = graph.parameters[f"{path}.weight"].dims[1]
    ids = positions(space, group.leaf, {group.leaf: pool}).repeat_interleave(taps(layer)).to(read.device)
    basis = spanned(read[:, ids < group.size])
    apart = read[:, indices_of(ids, range(group.size, pool))]
    apart = apart - basis @ (basis.T @ apart)
    by_unit = apart.view(len(apart), pool - group.size, -1).transpose(0, 1)
    by_unit = by_unit[:, :, :: -(-by_unit.shape[2] // MAX_TAPS)]
    return View(by_unit, residual - basis @ (basis.T @ residual))


def _few(rows: Tensor) -> Tensor:
    """Returns at most ``MAX_ROWS`` rows of ``[samples, positions, columns]``, evenly, in float64."""
    flat = rows.flatten(0, 1)
    return flat[:: -(-len(flat) // MAX_ROWS)].double()


def _add_directions(graph: ModelGraph, group: ChannelGroup, twin: nn.Module, readers: Sequence[str], pool: int) -> None:
    """Makes up to half of the candidates both signs of the leading directions of R' X, where positions agree."""
    maker = maker_of(graph, group)
    if maker is None:
        return
    seen = measure(graph, (*readers, maker), gradients=True, model=twin)
    check_reached(seen, readers)
    first, reader = layer_at(graph, maker), layer_at(graph, readers[0])
    inputs, gradient = seen.inputs[maker], seen.output_gradients[readers[0]]
    samples = min(
        len(inputs), len(gradient), num_affordable(first, seen.outputs[maker]), num_affordable(reader, gradient)
    )
    asked = positions_of(reader, gradient[:samples])
    if positions_of(first, seen.outputs[maker][:1]).shape[1] != asked.shape[1]:
        return
    read = _few(columns(reader, seen.inputs[readers[0]][:samples]))
    ids = positions(graph.parameters[f"{readers[0]}.weight"].dims[1], group.leaf, {group.leaf: pool})
    basis = spanned(read[:, ids.repeat_interleave(taps(reader)) < group.size])
    residual, given = _few(asked), _few(columns(first, inputs[:samples]))
    residual = residual - basis @ (basis.T @ residual)
    directions = torch.linalg.svd(residual.T @ given, full_matrices=False)[2]
    directions = directions[: (pool - group.size) // 4]
    both = torch.cat([directions, -directions])
    with torch.no_grad():
        weight = twin.get_parameter(f"{maker}.weight")
        size = weight[: group.size].flatten(1).norm(dim=1).mean()
        weight[group.size : group.size + len(both)] = (both * size).view(-1, *weight.shape[1:]).to(weight)


def _of_units(pool: Tensor, wanted: Tensor, size: int, chosen: Sequence[int]) -> Tensor:
    """Returns the indices in the pool of what a dimension keeps: all that is no candidate, then the chosen ones'.

    Args:
        pool: Unit of every index in the pool, -1 for none; ``wanted`` is the same after the edit.
        wanted: Its new units are numbered in the order of ``chosen``.
        size: Number of units before.
        chosen: Units of the pool.
    """
    source = torch.empty_like(wanted)
    for unit in {*wanted.tolist()}:
        source[wanted == unit] = indices_of(pool, [unit if unit < size else chosen[unit - size]])
    return source


def _with_units(edit: TensorEdit, dim: int, target: Tensor, values: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    whole = edit.rewrite(tensors) if edit.rewrite else edited(tensors[edit.path], edit)
    return whole.index_copy(dim, target.to(whole.device), values.to(whole))
