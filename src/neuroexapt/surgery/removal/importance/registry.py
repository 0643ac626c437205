"""The table of importances: a new one is a file in this folder and a line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ChannelGroup, ModelGraph, is_meta
from neuroexapt.surgery.removal.importance.activation import activation
from neuroexapt.surgery.removal.importance.fisher import fisher
from neuroexapt.surgery.removal.importance.magnitude import magnitude
from neuroexapt.surgery.removal.importance.taylor import taylor

Importance = Callable[[ModelGraph, Sequence[ChannelGroup]], list[Tensor]]

IMPORTANCES: dict[str, Importance] = {
    "magnitude": magnitude,
    "taylor": taylor,
    "fisher": fisher,
    "activation": activation,
}


def importance(graph: ModelGraph, groups: Sequence[ChannelGroup], kind: str = "magnitude") -> list[Tensor]:
    """Returns for every group the importance of each of its units: float64 ``[size]``, non-negative, finite.

    The model is measured once, whatever the number of groups, and left as it is. Scores compare the units of one group;
    between groups they need a common scale (``select_units``). On the meta device all are equal.

    Args:
        graph: The model; ``graph.objective`` is the mean loss on calibration data.
        groups: Groups of this graph.
        kind: A key of ``IMPORTANCES``. ``taylor`` and ``fisher`` need an objective.

    Raises:
        SurgeryError: The kind is unknown, or it needs gradients and there is no objective.
    """
    if kind not in IMPORTANCES:
        raise SurgeryError(f"importance: unknown kind {kind!r}; known are {', '.join(IMPORTANCES)}.")
    if is_meta(graph.model):
        return [torch.ones(group.size, dtype=torch.float64) for group in groups]
    scores = IMPORTANCES[kind](graph, groups)
    return [torch.where(score.isfinite(), score, torch.finfo(torch.float64).max) for score in scores]
