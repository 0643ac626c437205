"""The largest gradient that outgoing weights can give new units without incoming ones (GradMax)."""

from __future__ import annotations

from neuroexapt.analysis.estimators.base import Value
from neuroexapt.analysis.scores.base import Junction, JunctionShape, Score
from neuroexapt.analysis.scores.halves import LEAST_SAMPLES, leading, leading_flops, mean_over_halves
from neuroexapt.analysis.scores.products import products_flops, squared_mean
from neuroexapt.analysis.scores.spans import basis_flops, basis_of


class GradMax(Score):
    """The sum of the leading squared singular values of ``M = E[g x']``, one for each new unit.

    g is the gradient at what the reader makes of the unit's position, x what the maker reads there (Evci et al. 2022,
    eq. 10, with outgoing weights of length 1 and slope 1 of the activation). The directions are found on one half of
    the samples and valued on the other. A convolution's taps are columns of g.
    """

    name = "gradmax"
    view = "maker"
    needs_maker = True
    least_samples = LEAST_SAMPLES

    def flops(self, shape: JunctionShape) -> int:
        """For each half: a basis of the gradients, the directions, and their value."""
        half = shape.samples // 2 + 1
        rows = half * shape.rows
        known = min(shape.outputs, rows)
        units = min(shape.units, known)
        finding = basis_flops(rows, shape.outputs) + 2 * known * rows * (2 * shape.outputs + shape.inputs)
        finding += leading_flops(known, shape.inputs) + 2 * units * shape.outputs * (known + rows)
        return 2 * (finding + products_flops(half, shape.rows, shape.inputs, units))

    def workspace_bytes(self, shape: JunctionShape) -> int:
        """Float64 copies of the rows, a basis, and one gradient."""
        rows, known = shape.total, min(shape.outputs, shape.total)
        columns = 4 * shape.outputs + 3 * shape.inputs + 2 * shape.units + 2 * shape.rows
        return 8 * (rows * columns + 3 * known**2 + known * (shape.inputs + shape.outputs) + shape.inputs * shape.units)

    def estimate(self, junction: Junction) -> Value:
        """See the class."""
        return mean_over_halves(junction, _gain)


def _gain(one: Junction, other: Junction) -> Value:
    """Finds the outgoing weights on one half and the gradient that they give on the other."""
    assert one.inputs is not None
    assert other.inputs is not None
    asked, given = one.gradients.double().flatten(0, 1), one.inputs.double().flatten(0, 1)
    basis = asked.T @ basis_of(asked)  # spans the columns of asked'
    basis = basis / basis.norm(dim=0)
    outgoing = basis @ leading((asked @ basis).T @ given, one.units)
    return squared_mean(other.inputs.double() * other.weight, other.gradients.double() @ outgoing)
