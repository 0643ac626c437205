"""Making up for units that go: what their consumers got from them is told from what stays.

At the input of a consumer the removed entries are predicted from the kept ones, ``x_R ~ A x_K + c``, on calibration
data and at all positions alike; so ``W_R x_R ~ (W_R A) x_K + W_R c``, and these go into the kept columns and the bias:
reconstruction by least squares as in He et al. 2017 (Channel Pruning, section 3.1), with a ridge. The ridge is the one
of ``RIDGES`` that predicts the other half of the samples best; with the infinite one only the mean is absorbed.
With least squares a batch norm directly behind also gets the running variance of what it is given now: predictions vary
less than what they predict, and over many layers that adds up.

Memory: for one group of a consumer with d columns two Gram matrices of (d + 1)^2 float64 with d <= ``MAX_COLUMNS``, and
``CHUNK`` x (d + 1) float64 at a time, over at most ``MAX_POSITIONS`` positions; what ``measure`` keeps; and the output
of one consumer twice.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroexapt.graph import ModelGraph, is_meta, named_tensors
from neuroexapt.surgery.checking.measure import measure
from neuroexapt.surgery.places.consumers import Consumer, Shift, losing_columns, shift_of
from neuroexapt.surgery.plan import Contents, Fill, ParameterEdit, TensorEdit
from neuroexapt.surgery.writing.gather import gather

logger = logging.getLogger(__name__)

Repair = Literal["none", "mean", "least_squares"]

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, math.inf)  # times the mean variance of a kept column
MAX_COLUMNS = 4096  # of one group of a consumer: twice 128 MiB
MAX_POSITIONS = 32768
CHUNK = 4096
CONSTANT = 1e-12  # a variance below this share of the mean square is rounding


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """How the removed entries of a consumer's input follow from the kept ones.

    Attributes:
        coefficients: float64 ``[groups, removed, kept]``.
        constants: float64 ``[groups, removed]`` for each layer that uses the weight.
    """

    coefficients: Tensor
    constants: Mapping[str, Tensor]


def repaired(
    graph: ModelGraph, edits: Mapping[str, TensorEdit], repair: Repair
) -> tuple[list[TensorEdit], list[ParameterEdit]]:
    """Returns edits in which consumers make up for what they lose; what cannot be repaired is logged and left as it is.

    Args:
        graph: The model; measured on its calibration data, unless it is on the meta device.
        edits: Of a removal, by path.
        repair: ``mean`` or ``least_squares``.
    """
    consumers = []
    for path, found in losing_columns(graph, edits).items():
        if isinstance(found, Consumer):
            consumers.append(found)
        else:
            logger.warning("%s: loses columns that are not made up for: %s", path, found)
    inputs: Mapping[str, Tensor] = {}
    if not is_meta(graph.model):
        inputs = measure(graph, [module for consumer in consumers for module in consumer.modules]).inputs
    changed, added = dict(edits), list[ParameterEdit]()
    for consumer in consumers:
        prediction = _prediction(graph, consumer, inputs, RIDGES if repair == "least_squares" else (math.inf,))
        edit = changed[consumer.weight]
        changed[consumer.weight] = replace(edit, rewrite=_columns(consumer, prediction, edit))
        for module in consumer.modules:
            shift = shift_of(graph, consumer, module)
            if shift is None:
                logger.warning("%s: has no bias of its own, so the mean of what it loses is not absorbed", module)
                continue
            outputs = edit.maps[1 - consumer.dim]
            rows = _shift(consumer, prediction, module, outputs, shift.sign)
            if shift.is_new:
                old_size = named_tensors(graph.model)[consumer.weight].shape[1 - consumer.dim]
                size = old_size if outputs is None else len(outputs)
                added.append(ParameterEdit(module, "bias", (size,), rows))
            else:
                before = changed.get(shift.path, TensorEdit(shift.path, (None,), Fill("zeros")))
                changed[shift.path] = replace(before, rewrite=_moved(before, shift, rows))
            if shift.variance and module in inputs and repair == "least_squares":
                columns = changed[consumer.weight].rewrite
                ratio = _variance_ratio(graph, consumer, module, inputs[module], columns, outputs)
                before = changed.get(shift.variance, TensorEdit(shift.variance, (None,), Fill("zeros")))
                changed[shift.variance] = replace(before, rewrite=_scaled(before, shift.variance, ratio))
    return list(changed.values()), added


def _prediction(
    graph: ModelGraph, consumer: Consumer, inputs: Mapping[str, Tensor], ridges: Sequence[float]
) -> Prediction:
    """Fits every group of the consumer; zeros where nothing was measured or it is too large."""
    num_removed, num_kept = len(consumer.removed), len(consumer.kept)
    coefficients = torch.zeros(consumer.groups, num_removed, num_kept, dtype=torch.float64)
    constants = {m: torch.zeros(consumer.groups, num_removed, dtype=torch.float64) for m in consumer.modules}
    columns = {module: _positions(graph.model.get_submodule(module), inputs[module]) for module in inputs}
    seen = [columns[module] for module in consumer.modules if module in columns]
    if not seen or not all(bool(values.isfinite().all()) for values, _ in seen):
        return Prediction(coefficients, constants)
    if num_removed + num_kept > MAX_COLUMNS:
        logger.warning("%s: %d columns are too many for least squares", consumer.weight, num_removed + num_kept)
        ridges = (math.inf,)
    weight = _rows_first(consumer, named_tensors(graph.model)).cpu()
    for group in range(consumer.groups):
        offset = group * (num_removed + num_kept)
        order = torch.cat([consumer.removed, consumer.kept]) + offset
        rows = _lost(consumer, weight)[group]
        grams = [sum_of_squares([(v[:, order], half == h) for v, half in seen]) for h in (False, True)]
        coefficients[group] = fit(grams, torch.einsum("ort,ost->rs", rows, rows), ridges)
        for module in consumer.modules:
            mean = columns[module][0][:, order].double().mean(0)
            constants[module][group] = mean[:num_removed] - coefficients[group] @ mean[num_removed:]
    return Prediction(coefficients, constants)


def _positions(layer: nn.Module, given: Tensor) -> tuple[Tensor, Tensor]:
    """Returns ``[positions, channels]`` and to which half of the samples each position belongs."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        given = given.movedim(1, -1)
    samples = given.reshape(given.shape[0] if given.dim() > 1 else 1, -1, given.shape[-1])
    values = samples.flatten(0, 1)
    number = torch.arange(len(values))
    half = (number if len(samples) == 1 else number // samples.shape[1]) % 2 == 1
    step = math.ceil(len(values) / MAX_POSITIONS)
    return values[::step].cpu(), half[::step]


def sum_of_squares(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Returns ``Z^T Z`` of the chosen rows of all parts with a column of ones behind them.

    Args:
        parts: Values ``[n, d]`` of any dtype, and boolean ``[n]``.

    Returns:
        float64 ``[d + 1, d + 1]``.
    """
    size = parts[0][0].shape[1] + 1
    total = torch.zeros(size, size, dtype=torch.float64)
    for values, chosen in parts:
        for rows in torch.split(values[chosen], CHUNK):
            z = torch.cat([rows.double(), torch.ones(len(rows), 1, dtype=torch.float64)], 1)
            total += z.T @ z
    return total


def fit(grams: Sequence[Tensor], cost: Tensor, ridges: Sequence[float]) -> Tensor:
    """Returns the coefficients of the first variables on the others, with the ridge that generalises best.

    Args:
        grams: ``sum_of_squares`` of two halves of the data; ``[r + k + 1, r + k + 1]``.
        cost: float64 ``[r, r]``: what an error ``e`` costs is ``e^T cost e``.
        ridges: To choose from.

    Returns:
        float64 ``[r, k]``.
    """
    num_removed = len(cost)

    def error(ridge: float) -> float:
        total = 0.0
        for gram, other in (grams, grams[::-1]):
            a = _solved(gram, num_removed, ridge)
            means = gram[:-1, -1] / gram[-1, -1]
            constant = means[:num_removed] - a @ means[num_removed:]
            residual = torch.cat([torch.eye(num_removed, dtype=a.dtype), -a, -constant[:, None]], 1)
            total += float((residual @ other @ residual.T * cost).sum())
        return total

    can_choose = len(ridges) > 1 and all(float(gram[-1, -1]) for gram in grams)
    best = min(ridges, key=error) if can_choose else math.inf
    return _solved(grams[0] + grams[1], num_removed, best)


def _solved(gram: Tensor, num_removed: int, ridge: float) -> Tensor:
    means = gram[:-1, -1] / gram[-1, -1]
    covariance = gram[:-1, :-1] / gram[-1, -1] - torch.outer(means, means)
    inner, outer = covariance[num_removed:, num_removed:], covariance[num_removed:, :num_removed]
    scale = float(inner.diagonal().mean()) if inner.numel() else 0.0
    if math.isinf(ridge) or scale <= 0:
        return torch.zeros(num_removed, len(inner), dtype=torch.float64)
    solution: Tensor = torch.linalg.solve(inner + ridge * scale * torch.eye(len(inner), dtype=torch.float64), outer)
    return solution.T


def _rows_first(consumer: Consumer, tensors: Mapping[str, Tensor]) -> Tensor:
    """Returns the weight as float64 ``[out, in / groups, ...]``, however it is kept."""
    weight = tensors[consumer.weight].detach().double()
    return weight.T if consumer.dim == 0 else weight


def _lost(consumer: Consumer, weight: Tensor) -> Tensor:
    """Returns the removed columns, ``[groups, out / groups, removed, taps]``."""
    columns = weight.index_select(1, consumer.removed.to(weight.device))
    return columns.reshape(consumer.groups, -1, len(consumer.removed), math.prod(weight.shape[2:]))


def _columns(consumer: Consumer, prediction: Prediction, edit: TensorEdit) -> Contents:
    """New contents of the weight: kept columns plus what they take over."""

    def make(tensors: Mapping[str, Tensor]) -> Tensor:
        old = _rows_first(consumer, tensors)
        lost = _lost(consumer, old)
        taken = torch.einsum("gort,grk->gokt", lost, prediction.coefficients.to(old.device)).flatten(0, 1)
        new = old.index_select(1, consumer.kept.to(old.device))
        outputs = edit.maps[1 - consumer.dim]
        result = gather(new + taken.reshape(new.shape), (outputs, *[None] * (old.dim() - 1)))
        return result.T if consumer.dim == 0 else result

    return make


def _shift(consumer: Consumer, prediction: Prediction, module: str, rows: Tensor | None, sign: float) -> Contents:
    """What is added to the constants of a layer's outputs, one for each output that stays."""

    def make(tensors: Mapping[str, Tensor]) -> Tensor:
        old = _rows_first(consumer, tensors)
        constants = prediction.constants[module].to(old.device)
        added: Tensor = torch.einsum("gort,gr->go", _lost(consumer, old), constants).flatten()
        return gather(sign * added, (rows,))

    return make


def _variance_ratio(
    graph: ModelGraph, consumer: Consumer, module: str, given: Tensor, columns: Contents | None, rows: Tensor | None
) -> Tensor:
    """Returns the variance of a layer's outputs after over before, float64, one for each output that stays."""
    layer, tensors = graph.model.get_submodule(module), named_tensors(graph.model)
    old = tensors[consumer.weight].detach()
    new = columns(tensors).to(old) if columns is not None else old
    dim = 1 if isinstance(layer, nn.modules.conv._ConvNd) else -1
    width = len(consumer.kept) + len(consumer.removed)
    kept = torch.cat([consumer.kept + group * width for group in range(consumer.groups)]).to(given.device)
    with torch.no_grad():
        old, new = (old.T, new.T) if consumer.dim == 0 else (old, new)
        before = gather(_output(layer, given, old).movedim(dim, 0).flatten(1), (rows, None)).double()
        after = _output(layer, given.index_select(dim, kept), new).movedim(dim, 0).flatten(1).double()
    was, now = before.var(1, correction=0), after.var(1, correction=0)
    is_known = was > CONSTANT * before.square().mean(1)
    return torch.where(is_known, now / was.clamp_min(torch.finfo(torch.float64).tiny), 1.0)


def _output(layer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        result: Tensor = layer._conv_forward(x, weight, None)
        return result
    return F.linear(x, weight)


def _scaled(edit: TensorEdit, path: str, ratio: Tensor) -> Contents:
    def make(tensors: Mapping[str, Tensor]) -> Tensor:
        old = tensors[path].detach().double()
        return gather(old, edit.maps) * ratio.to(old.device)

    return make


def _moved(edit: TensorEdit, shift: Shift, rows: Contents) -> Contents:
    def make(tensors: Mapping[str, Tensor]) -> Tensor:
        old = tensors[shift.path].detach().double()
        return gather(old, edit.maps) + rows(tensors).to(old.device)

    return make
