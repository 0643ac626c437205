"""How much of the gradient that a layer's outputs ask for its weights cannot give (TINY)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from neuroexapt.analysis.estimators.base import Estimator, Value
from neuroexapt.analysis.estimators.regression import (
    ROOM,
    Fit,
    fit,
    open_to,
    ridge,
    room_for,
    share,
    spread_rows,
    workspace_bytes,
)
from neuroexapt.analysis.watching import LayerSample


class Expressivity(Estimator):
    """The expressivity gap: min over dW, db of E|V - dW B - db|^2 / E|V|^2.

    V is what the loss asks of the layer's outputs, the negative gradient there; B are the layer's inputs at the same
    position (Verbockhaven et al. 2024, Growing Tiny Networks: Spotting Expressivity Bottlenecks and Fixing Them
    Optimally, eq. 4 to 6, as a fraction). A gap of 0: changing the weights can give everything, more units can give no
    more. A gap of 1: no change of these weights moves the outputs where the loss wants them.

    More than 128 inputs are seen through a count sketch, and linear functions of a sketch are fewer than those of the
    inputs: the gap of the sketch, which is what the interval holds, is then an upper bound of the layer's own. The
    sketch of more than 64 outputs keeps both squared norms on average. Where the samples are too few for a fit of the
    inputs (of rank r: n - 1 - r < max(10, n / 5)) the value is the leave-one-out error of ridge regression, an upper
    bound, and the interval reaches down to 0. Samples whose inputs resemble no other's are left out of the fit, and the
    interval leaves open what they ask for.
    """

    name = "expressivity"
    views = frozenset({"inputs", "gradients"})
    values = MappingProxyType(
        {
            "expressivity_gap": "share of the squared gradient at the layer's outputs that no change of its weights "
            "and bias can give, in [0, 1]; 0 where they can give everything; an upper bound beyond 128 inputs"
        }
    )

    def workspace_bytes(self, sample: LayerSample) -> int:
        """A decomposition of the inputs and some copies of the gradients."""
        if sample.inputs is None or sample.gradients is None:
            return 0
        return workspace_bytes(len(sample), sample.inputs.shape[1], sample.gradients.shape[1])

    def estimate(self, sample: LayerSample) -> Mapping[str, Value]:
        """See ``values``; nothing where there is no gradient."""
        assert sample.inputs is not None
        assert sample.gradients is not None
        rows, left, singular = spread_rows(sample.inputs)
        sample.once(ROOM, lambda: room_for(*left.shape))
        gradients = sample.gradients[rows]
        everywhere, asked = float(Fit.nothing(sample.gradients).of_row.sum()), Fit.nothing(gradients)
        if not float(asked.errors):
            return {}
        if room_for(*left.shape) < 0:
            return {"expressivity_gap": replace(share(ridge(left, singular, gradients), asked), low=0.0)}
        gap = share(fit(left, gradients), asked)
        return {"expressivity_gap": open_to(gap, 1 - float(asked.of_row.sum()) / everywhere)}
