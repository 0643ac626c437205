"""How much of what a layer itself cannot give its surroundings could tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import torch

from neuroexapt.analysis.estimators.base import Estimator, Value
from neuroexapt.analysis.estimators.regression import (
    NOTHING,
    ROOM,
    Fit,
    basis,
    fit,
    open_to,
    room_for,
    share,
    spread_rows,
    workspace_bytes,
)
from neuroexapt.analysis.watching import LayerSample


class Context(Estimator):
    """The share of the expressivity gap that the whole sample's pooled features explain linearly.

    The gradient at one position of the layer's outputs is regressed on the layer's inputs there, and on these together
    with the units averaged over a 2 x 2 grid of all positions: what the second leaves less is what a block that hands
    on pooled features (squeeze and excitation, Hu et al. 2018; attention) could supply. A partial R^2. It is blind to
    what only a product of features and context could give. In a layer without positions the pooled features are its own
    units, and the share is what the nonlinearity behind the layer could give back to it.

    Where the samples are too few for the inputs nothing is returned; where they suffice for the inputs and for some
    of the context, its first principal components are taken: a lower bound, and the interval reaches up to 1.
    """

    name = "context"
    views = frozenset({"inputs", "gradients", "pooled"})
    values = MappingProxyType(
        {
            "context_fraction": "share of what the layer's weights cannot give that pooled features of the whole "
            "sample predict, in [0, 1]; 0 where the surroundings tell nothing"
        }
    )

    def workspace_bytes(self, sample: LayerSample) -> int:
        """A decomposition of inputs and context, and some copies of the gradients."""
        if sample.inputs is None or sample.gradients is None or sample.pooled is None:
            return 0
        columns = sample.inputs.shape[1] + sample.pooled.shape[1]
        return workspace_bytes(len(sample), columns, sample.gradients.shape[1])

    def estimate(self, sample: LayerSample) -> Mapping[str, Value]:
        """See ``values``; nothing where there is no gradient, or weights can give all of it."""
        assert sample.inputs is not None
        assert sample.gradients is not None
        assert sample.pooled is not None
        given = sample.inputs
        room = sample.once(ROOM, lambda: room_for(*spread_rows(given)[1].shape))
        if room < 1:
            return {}
        rows, inputs, _ = spread_rows(given)
        gradients, pooled = sample.gradients[rows], sample.pooled[rows].double()
        alone, asked = fit(inputs, gradients), Fit.nothing(sample.gradients).of_row
        if float(alone.errors[0]) <= NOTHING * float(asked.mean()):
            return {}
        context, _ = basis(pooled - inputs @ (inputs.T @ pooled), of=pooled)
        found = fit(torch.cat([inputs, context[:, :room]], 1), gradients)
        part = share(found, alone, is_complement=True)
        part = open_to(part, float(asked[~rows].sum()) / (len(rows) * float(alone.errors[0])))
        return {"context_fraction": part if context.shape[1] <= room else replace(part, high=1.0)}
