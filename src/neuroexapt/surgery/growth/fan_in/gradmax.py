"""GradMax: outgoing weights that give new units with zero incoming weights the largest gradient.

With incoming weights 0 a new unit is silent where the activation f has f(0) = 0, and the gradient of its incoming
weights is f'(0) V' M with V its outgoing weights and M = E[dL/dz h'], z the reader's outputs and h what the maker
reads (Evci et al. 2022, GradMax, section 3). Under a bound on |V| its norm is largest for the leading left singular
vectors of M. For convolutions rows and columns of M run over taps and channels. Where f'(0) = 0, as torch defines it
for ReLU, neither side ever gets a gradient: the units are dead, and a warning says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ChannelGroup, ModelGraph, Role
from neuroexapt.surgery.checking.measure import Measured, measure
from neuroexapt.surgery.checking.structure import edited_twin
from neuroexapt.surgery.growth.fan_in.layers import (
    Layer,
    check_reached,
    columns,
    layer_at,
    maker_of,
    num_affordable,
    placed_in_reader,
    readers_of,
    taps,
)
from neuroexapt.surgery.plan import Plan, TensorEdit
from neuroexapt.surgery.writing.gather import edited

MAX_ENTRIES = 1 << 26  # of the matrix M, in float64


def gradmax(graph: ModelGraph, group: ChannelGroup, to: int, plan: Plan, generator: torch.Generator) -> Plan:
    """Gives the new units of a plan zero incoming weights and the outgoing weights of GradMax.

    Args:
        graph: With an objective.
        group: The axis that grows.
        to: Its new size.
        plan: Grows it silently.
        generator: Not used: nothing is random.

    Raises:
        SurgeryError: The axis does not lie between one linear layer or convolution and another, position by position.
    """
    del generator
    maker, reader = _ends(graph, group)
    seen = measure(graph, (maker, reader), gradients=True)
    check_reached(seen, (reader,))
    matrix = gradient_matrix(graph, maker, reader, seen)
    new = to - group.size
    if new > min(matrix.shape):
        raise SurgeryError(f"the gradient has {min(matrix.shape)} directions, found {new} new units")
    left = torch.linalg.svd(matrix, full_matrices=False)[0][:, :new]
    weight = layer_at(graph, reader).weight.detach()
    size = weight.transpose(0, 1).flatten(1).norm(dim=1).mean().double().cpu()
    outgoing = (left * torch.where(size > 0, size, 1.0)).T.reshape(new, len(weight), *weight.shape[2:]).transpose(0, 1)
    edits = []
    for edit in plan.tensors:
        if edit.path == f"{reader}.weight":
            edit = replace(edit, rewrite=partial(_with_new, edit, 1, outgoing))
        elif edit.path in (f"{maker}.weight", f"{maker}.bias"):
            edit = replace(edit, rewrite=partial(_with_new, edit, 0, torch.zeros(1)))
        edits.append(edit)
    result = replace(plan, tensors=tuple(edits))
    _look_at(graph, group, result, maker, reader)
    return result


def gradient_matrix(graph: ModelGraph, maker: str, reader: str, seen: Measured) -> Tensor:
    """Returns M = E[dL/dz h'], float64 ``[out * taps of the reader, in * taps of the maker]``; only M is kept.

    Raises:
        SurgeryError: The maker's outputs are not, position by position, what the reader gets.
    """
    first, second = layer_at(graph, maker), layer_at(graph, reader)
    inputs, read, gradient = seen.inputs[maker], seen.inputs[reader], seen.output_gradients[reader]
    made = seen.outputs[maker]
    if type(first) is not type(second) or made.shape[2:-1] != read.shape[2:-1] or made[0].numel() != read[0].numel():
        raise SurgeryError(f"what {reader} gets is not, position by position, what {maker} makes")
    shape = (len(second.weight) * taps(second), first.weight[0].numel())
    if shape[0] * shape[1] > MAX_ENTRIES:
        raise SurgeryError(f"the gradient's matrix of {shape[0]} x {shape[1]} is larger than {MAX_ENTRIES} entries")
    total = torch.zeros(shape, dtype=torch.float64, device=inputs.device)
    samples = min(len(inputs), len(gradient))
    chunk = min(num_affordable(first, made), num_affordable(second, gradient), samples)
    for start in range(0, samples, chunk):
        part = slice(start, min(start + chunk, samples))
        total += torch.einsum(
            "npo,npi->oi", _at_units(second, gradient[part], read), columns(first, inputs[part])
        ).double()
    return total.cpu()


def _at_units(reader: Layer, gradient: Tensor, read: Tensor) -> Tensor:
    if isinstance(reader, nn.Linear):
        return gradient.reshape(len(gradient), -1, gradient.shape[-1])
    return placed_in_reader(reader, gradient, (read.shape[2], read.shape[3]))


def _ends(graph: ModelGraph, group: ChannelGroup) -> tuple[str, str]:
    readers, maker = readers_of(graph, group), maker_of(graph, group)
    if maker is None:
        raise SurgeryError("the units are not the rows of one linear layer or convolution with one group")
    if len(readers) != 1:
        raise SurgeryError(f"{', '.join(readers)} read the axis, needed one")
    return maker, readers[0]


def _look_at(graph: ModelGraph, group: ChannelGroup, plan: Plan, maker: str, reader: str) -> None:
    """Tries the plan out: the new units must be silent, and are dead where no gradient comes back."""
    seen = measure(graph, (reader,), gradients=True, model=edited_twin(graph, plan))
    at = 1 if isinstance(layer_at(graph, reader), nn.Conv2d) else -1
    if seen.inputs[reader].movedim(at, -1)[..., group.size :].any():
        raise SurgeryError("a unit with zero incoming weights is not 0 behind its activation")
    if f"{maker}.weight" not in seen.gradients:
        raise SurgeryError(f"{maker} is frozen")
    if not seen.gradients[f"{maker}.weight"][group.size :].any():
        warnings.warn(
            f"{group.name}: the slope of the activation at 0 is 0, so units with zero incoming weights never get a "
            "gradient. Use init='zero_fan_out' or 'informed'.",
            stacklevel=2,
        )
    elif any(Role.NORM_GAIN in member.roles for member in group.members):
        warnings.warn(
            f"{group.name}: a norm divides the new units by a standard deviation of 0, so their first gradients in "
            "train mode are larger by 1 / sqrt(eps). Use init='zero_fan_out' or 'informed'.",
            stacklevel=2,
        )


def _with_new(edit: TensorEdit, dim: int, values: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    old = tensors[edit.path]
    result = edited(old, edit)
    new = result.narrow(dim, old.shape[dim], result.shape[dim] - old.shape[dim])
    new.copy_(values.to(new).expand_as(new))
    return result
