"""Where to change something: from assays and history to an order. A new policy is a function and a line in a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from neuroexapt.morphogenesis.assay import Assay
from neuroexapt.morphogenesis.history import History

Policy = Callable[[Sequence[Assay], History], list[Assay]]  # best first


def predicted(assay: Assay, history: History) -> float:
    """Evidence times what evidence of this kind has been worth so far; relative between kinds."""
    value = max(assay.evidence.value, 0.0) if assay.evidence is not None else 0.0
    return value * history.factor(type(assay.mutation).__name__)


def score(assay: Assay, history: History) -> float:
    """Predicted gain per added FLOP."""
    return predicted(assay, history) / max(assay.flop_delta, 1)


def by_evidence(assays: Sequence[Assay], history: History) -> list[Assay]:
    """Most predicted gain per added FLOP first."""
    return sorted(assays, key=lambda a: (-score(a, history), a.order))


def uniform(assays: Sequence[Assay], history: History) -> list[Assay]:
    """Every place in turn: the one that has been edited least first, in the order of the model; the baseline."""
    return sorted(assays, key=lambda a: (history.edits_at.get(a.place, 0), a.order))


POLICIES: dict[str, Policy] = {"evidence": by_evidence, "uniform": uniform}
