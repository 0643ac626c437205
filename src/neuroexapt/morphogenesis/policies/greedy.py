"""Policy "greedy": most predicted gain for the FLOPs it adds."""

from __future__ import annotations

from collections.abc import Sequence

from neuroexapt.morphogenesis.assay import Assay
from neuroexapt.morphogenesis.history import History
from neuroexapt.morphogenesis.policies.base import Context, kind_of


def predicted(assay: Assay, history: History) -> float:
    """Returns the evidence times what evidence of this kind has been worth so far, >= 0; relative between kinds."""
    value = max(assay.evidence.value, 0.0) if assay.evidence is not None else 0.0
    return value * history.factor(kind_of(assay))


def score(assay: Assay, history: History) -> float:
    """Returns the predicted gain per added FLOP; an edit that adds none counts as adding one."""
    return predicted(assay, history) / max(assay.flop_delta, 1)


def greedy(assays: Sequence[Assay], context: Context) -> list[Assay]:
    """Orders by predicted gain per added FLOP, in three ranks.

    First what promises a gain and adds no FLOPs: nothing has to be weighed there, so most gain first. Then what
    promises a gain for FLOPs, most gain per FLOP first. Last what promises none, or was not scored, such as edits that
    shrink: what saves most FLOPs first, what adds most last.
    """

    def rank(assay: Assay) -> tuple[int, float, int]:
        gain = predicted(assay, context.history)
        if gain <= 0:
            return 2, assay.flop_delta, assay.order
        return (0, -gain, assay.order) if assay.flop_delta <= 0 else (1, -gain / assay.flop_delta, assay.order)

    return sorted(assays, key=rank)
