"""The classifier behind pooled features: one linear layer, or hidden layers before it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from neuroexapt.errors import ModelError
from neuroexapt.models.checks import require_positive


def classifier(
    where: str, in_features: int, num_classes: int, hidden: Sequence[int] = (), dropout: Sequence[float] = ()
) -> nn.Module:
    """Returns a map of [N, in_features] to logits [N, num_classes].

    Args:
        where: Name of the network, for messages.
        in_features: Pooled features.
        num_classes: Logits.
        hidden: Widths of hidden layers, each with batch norm, ReLU and dropout.
        dropout: Probability for each hidden layer, in [0, 1); no dropout if empty.

    Raises:
        ModelError: A width is no whole number above zero, or there are not as many probabilities as hidden layers.
    """
    require_positive(f"{where}: hidden", hidden)
    rates = list(dropout) or [0.0] * len(hidden)
    if len(rates) != len(hidden) or not all(isinstance(p, (int, float)) and 0 <= p < 1 for p in rates):
        raise ModelError(
            f"{where}: dropout: found {dropout!r} for hidden {hidden!r}, needed one number in [0, 1) for each hidden "
            "layer, or none. Correct model.options."
        )
    layers: list[nn.Module] = []
    features = in_features
    for width, rate in zip(hidden, rates, strict=True):
        layers += [nn.Linear(features, width), nn.BatchNorm1d(width), nn.ReLU()]
        layers += [nn.Dropout(rate)] if rate else []
        features = width
    last = nn.Linear(features, num_classes)
    return nn.Sequential(*layers, last) if layers else last
