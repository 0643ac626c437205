"""Policy "uniform": every place in turn."""

from __future__ import annotations

from collections.abc import Sequence

from neuroexapt.morphogenesis.assay import Assay
from neuroexapt.morphogenesis.policies.base import Context


def uniform(assays: Sequence[Assay], context: Context) -> list[Assay]:
    """Puts the place that has been edited least first, in the order of the model; the baseline."""
    return sorted(assays, key=lambda assay: (context.history.edits_at.get(assay.place, 0), assay.order))
