"""The squared gradient at the zero entries, as the new units begin."""

from __future__ import annotations

from neuroexapt.analysis.estimators.base import Value
from neuroexapt.analysis.scores.base import Junction, JunctionShape, Score
from neuroexapt.analysis.scores.products import products_flops, squared_mean, squared_mean_of


class GradientNorm(Score):
    """``|E g|^2``: a gradient step of length h at the entries lowers the loss by h times this.

    The growth score of Maile et al. 2022 (NORTH*) and of Evci et al. 2022 (GradMax, eq. 4) for given units; by products
    of different samples only, so that noise adds nothing.
    """

    name = "gradient_norm"
    view = "reader"

    def flops(self, shape: JunctionShape) -> int:
        """Two products of all rows, and those within each sample."""
        return 0 if shape.is_diagonal else products_flops(shape.samples, shape.rows, shape.new, shape.outputs)

    def workspace_bytes(self, shape: JunctionShape) -> int:
        """Float64 copies of the rows, and one gradient."""
        columns = 3 * shape.outputs + 2 * shape.new
        return 8 * (shape.total * (columns + 2 * shape.rows) + shape.new * shape.outputs)

    def estimate(self, junction: Junction) -> Value:
        """See the class."""
        new, gradients = junction.new.double() * junction.weight, junction.gradients.double()
        if junction.is_diagonal:
            return squared_mean_of((new * gradients).sum(1))
        return squared_mean(new, gradients)
