"""What new units add to what the layer can do already: the expansion score of Mitchell et al. 2023 (SENN)."""

from __future__ import annotations

from neuroexapt.analysis.estimators.base import Value
from neuroexapt.analysis.scores.base import Junction, JunctionShape, Score
from neuroexapt.analysis.scores.spans import (
    ALREADY_SPANNED,
    basis_flops,
    explained,
    explained_flops,
    explained_one_by_one,
    spanned_already,
    without,
)


class Residual(Score):
    """``tr(R' A (A' A)^-1 A' R) / n`` with R and A the gradient and the new columns, projected out of the old ones.

    To first order, what the new units add to the decrease of the loss along the steepest descent in the space of the
    layer's outputs (Mitchell et al. 2023, eq. 6, with the identity for the Fisher information), per unit of its step.
    The old columns are those of the layer and a constant; where there are more than half as many as rows, the leading
    ones. Corrected for the number of samples; see ``spans``.
    """

    name = "residual"
    view = "reader"

    def flops(self, shape: JunctionShape) -> int:
        """Projecting, and explaining what is left."""
        rows, old = shape.total, shape.old + 1
        kept = min(old, max(rows // 2, 1))
        projecting = basis_flops(rows, old) + 4 * rows * kept * (shape.outputs + shape.new)
        if shape.is_diagonal:
            return projecting
        return projecting + explained_flops(shape.samples, shape.rows, shape.new, shape.outputs)

    def workspace_bytes(self, shape: JunctionShape) -> int:
        """Float64 copies of all rows, both projections, two bases, and Gram matrices."""
        rows, old = shape.total, shape.old + 1
        columns = 5 * shape.outputs + 5 * shape.new + 4 * old
        small = max(min(rows, old), min(rows, shape.new))
        return 8 * (rows * columns + 3 * small**2 + min(shape.new, rows) * shape.outputs + 2 * rows * shape.rows)

    def estimate(self, junction: Junction) -> Value:
        """See the class."""
        samples = len(junction.gradients)
        spanned = spanned_already(junction.old.double())
        new = junction.new.double().flatten(0, 1)
        squares = new.square().sum(0)
        residual = without(junction.gradients.double().flatten(0, 1), spanned)
        apart = without(new, spanned)
        if junction.is_diagonal:
            found = explained_one_by_one(apart, residual, spanned, ALREADY_SPANNED * squares, samples)
        else:
            found = explained(apart, residual, spanned, ALREADY_SPANNED * float(squares.max()), samples)
        scale = junction.weight
        return Value(found.value * scale, found.spread * scale, found.low * scale, found.high * scale)
