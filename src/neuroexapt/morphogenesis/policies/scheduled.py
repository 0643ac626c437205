"""Policy "scheduled": mutation kinds in turn."""

from __future__ import annotations

from collections.abc import Sequence

from neuroexapt.morphogenesis.assay import Assay
from neuroexapt.morphogenesis.policies.base import Context, kind_of
from neuroexapt.morphogenesis.policies.uniform import uniform


def scheduled(assays: Sequence[Assay], context: Context) -> list[Assay]:
    """Lets the kind of ``sequence`` go whose turn it is by the number of events, in the order of ``uniform``.

    An event without a candidate of that kind has none; the turn passes on with the number of events.
    """
    turn = context.config.sequence[context.num_events % len(context.config.sequence)]
    return uniform([assay for assay in assays if kind_of(assay) == turn], context)
