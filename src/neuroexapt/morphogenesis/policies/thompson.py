"""Policy "thompson": the kind that may well be worth most, by what edits have been worth."""

from __future__ import annotations

from collections.abc import Sequence

from neuroexapt.morphogenesis.assay import Assay
from neuroexapt.morphogenesis.policies.base import Context, kind_of
from neuroexapt.morphogenesis.policies.greedy import greedy, predicted
from neuroexapt.morphogenesis.policies.uniform import uniform


def thompson(assays: Sequence[Assay], context: Context) -> list[Assay]:
    """Orders kinds by one draw each from the posterior of their net gain (Thompson 1933), less what is risky.

    A kind comes first as often as it is believed to be the best, so that what has been tried little is tried, and what
    failed is not tried for long. ``risk_aversion`` takes as many standard deviations between edits of a kind off its
    draw (``Experience.sample``). Within a kind come those with a predicted gain as ``greedy`` has them, then the rest
    as ``uniform`` has it.
    """
    ordered: list[Assay] = []
    draws = {
        kind: context.experience.sample(kind, context.generator, context.config.risk_aversion)
        for kind in sorted({kind_of(assay) for assay in assays})
    }
    for kind in sorted(draws, key=lambda kind: -draws[kind]):
        own = [assay for assay in assays if kind_of(assay) == kind]
        promising = [assay for assay in own if predicted(assay, context.history) > 0]
        rest = [assay for assay in own if predicted(assay, context.history) <= 0]
        ordered += greedy(promising, context) + uniform(rest, context)
    return ordered
