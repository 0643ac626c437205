"""Which edit of which network each law is tested on."""

from __future__ import annotations

from dataclasses import replace

from contracts.experiment import objective
from contracts.networks import NETWORKS, batch, build
from neuroexapt.graph import trace
from neuroexapt.surgery import MUTATIONS, InsertLayer, Mutation, candidates

WITH_IDENTITIES = ("conv_bn", "mlp")  # where an inserted layer is tried as an identity behind a ReLU, too


def _cases(name: str) -> list[tuple[str, Mutation]]:
    """Every axis that can be widened, and of the other kinds the last place."""
    found = candidates(trace(build(name), batch(), objective))
    by_kind = {kind: [m for m in found if type(m).__name__ == kind] for kind in MUTATIONS}
    kept = [m for kind, of_kind in by_kind.items() for m in (of_kind if kind == "Widen" else of_kind[-1:])]
    if name in WITH_IDENTITIES:
        kept += [replace(m, start="identity") for m in found if isinstance(m, InsertLayer)][:1]
    return [(name, mutation) for mutation in kept]


CASES = [case for name in NETWORKS for case in _cases(name)]
IDS = [f"{name}-{type(m).__name__}-{m.place}" for name, m in CASES]


def _one_of_each_kind() -> list[tuple[str, Mutation]]:
    """Another network for every kind, as far as there are enough."""
    chosen = []
    for index, kind in enumerate(MUTATIONS):
        of_kind = [case for case in CASES if type(case[1]).__name__ == kind]
        chosen += of_kind[index % max(len(of_kind), 1) :][:1]
    return chosen


FEW = _one_of_each_kind()
