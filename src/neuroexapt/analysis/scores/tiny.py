"""What the best possible new units would gain, by Verbockhaven et al. 2024 (TINY)."""

from __future__ import annotations

from torch import Tensor

from neuroexapt.analysis.estimators.base import Value
from neuroexapt.analysis.scores.base import Junction, JunctionShape, Score
from neuroexapt.analysis.scores.halves import LEAST_SAMPLES, leading, leading_flops, mean_over_halves
from neuroexapt.analysis.scores.spans import (
    ALREADY_SPANNED,
    basis_flops,
    basis_of,
    explained,
    explained_flops,
    spanned_already,
    without,
)


class Tiny(Score):
    """The sum of the leading squared singular values of ``S^-1/2 N``, one for each new unit.

    ``S = E[x x']`` of what the maker reads and ``N = E[x r']`` with r the gradient that the old units cannot answer
    (Verbockhaven et al. 2024, proposition 3.2); the slope of the activation between is taken as 1. The directions are
    found on one half of the samples and valued on the other as ``Residual`` values new columns. A convolution's taps
    are columns of the gradient.
    """

    name = "tiny"
    view = "maker"
    needs_maker = True
    least_samples = LEAST_SAMPLES

    def flops(self, shape: JunctionShape) -> int:
        """For each half: three bases, the directions, and their value."""
        rows, old = (shape.samples // 2 + 1) * shape.rows, shape.old + 1
        kept, known = min(old, rows), min(shape.inputs, rows)
        units = min(shape.units, known)
        finding = basis_flops(rows, shape.inputs) + 2 * known * rows * (shape.outputs + shape.inputs + units)
        finding += leading_flops(known, shape.outputs) + 2 * units * shape.inputs * (known + rows)
        projecting = 2 * (basis_flops(rows, old) + 4 * rows * kept * (shape.outputs + units))
        return 2 * (finding + projecting + explained_flops(shape.samples // 2 + 1, shape.rows, units, shape.outputs))

    def workspace_bytes(self, shape: JunctionShape) -> int:
        """Float64 copies of all rows, three bases, and Gram matrices."""
        rows, old = shape.total, shape.old + 1
        columns = 5 * shape.outputs + 4 * shape.inputs + 4 * old + 4 * shape.units
        small = min(rows, max(old, shape.inputs))
        return 8 * (rows * (columns + 2 * shape.rows) + 4 * small**2 + small * (shape.outputs + shape.inputs))

    def estimate(self, junction: Junction) -> Value:
        """See the class."""
        found = mean_over_halves(junction, _gain)
        scale = junction.weight
        return Value(found.value * scale, found.spread * scale, found.low * scale, found.high * scale)


def _gain(one: Junction, other: Junction) -> Value:
    """Finds the units' incoming weights on one half and values them on the other."""
    assert one.inputs is not None
    assert other.inputs is not None
    given = one.inputs.double().flatten(0, 1)
    basis = basis_of(given, most=max(len(given) // 2, 1))
    seen = given.T @ basis
    directions = leading(basis.T @ _residual(one)[0], one.units)
    weights = seen @ (directions / seen.square().sum(0)[:, None])  # given @ weights = basis @ directions
    residual, spanned = _residual(other)
    new = other.inputs.double().flatten(0, 1) @ weights
    least = ALREADY_SPANNED * float(new.square().sum(0).max())
    return explained(without(new, spanned), residual, spanned, least, len(other.gradients))


def _residual(junction: Junction) -> tuple[Tensor, Tensor]:
    spanned = spanned_already(junction.old.double())
    return without(junction.gradients.double().flatten(0, 1), spanned), spanned
