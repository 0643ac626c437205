"""Which needs a model shows, for edits that must answer one."""

from __future__ import annotations

from typing import Any

from neuroexapt.analysis import BottleneckReport, bottlenecks, measure_evidence
from neuroexapt.config import EvidenceConfig, MorphogenesisConfig
from neuroexapt.graph import FlopCount, ModelGraph
from neuroexapt.morphogenesis.answers import ANSWERS
from neuroexapt.morphogenesis.assay import Batches, LossFunction
from neuroexapt.morphogenesis.history import History
from neuroexapt.morphogenesis.ledger import Ledger
from neuroexapt.surgery import Mutation, Surgeon
from neuroexapt.surgery.places.sites import channel_axis

PASSES = 3  # forwards that a sample's evidence takes, backward included; the estimators' arithmetic is small beside it


class Needs:
    """Measures needs when they are asked for, once for each state of the model. Memory: one report."""

    def __init__(
        self, config: MorphogenesisConfig, batches: Batches | None, loss_function: LossFunction, ledger: Ledger
    ) -> None:
        self._config, self._batches, self._loss_function = config, batches, loss_function
        self._ledger = ledger
        self._known: tuple[Any, BottleneckReport] | None = None

    def of(self, surgeon: Surgeon, mutation: Mutation, history: History) -> float:
        """Returns the percentile, in [0, 1], of the need that an edit answers where it acts; 1 where none is known."""
        names = [name for name, kinds in ANSWERS.items() if isinstance(mutation, kinds)]
        if not names or self._batches is None:
            return 1.0
        report = self._report(surgeon, history)
        paths = layers_at(surgeon.graph, mutation.place)
        found = [
            layer.needs[name].score
            for layer in report.layers
            for name in names
            if layer.path in paths and name in layer.needs
        ]
        return max(found, default=0.0)

    def highest(self, surgeon: Surgeon, history: History, max_flops: float) -> float:
        """Returns the highest need that any of the kinds that are on could answer, as a percentile in [0, 1].

        It is 0 where measuring would take more than ``max_flops``: asked again later, it may be affordable.
        """
        if PASSES * self._config.evidence_samples * surgeon.graph.cost.flops_per_sample > max_flops:
            return 0.0
        candidates = surgeon.candidates(self._config.kinds, growth=self._config.widen_ratio)
        return max((self.of(surgeon, mutation, history) for mutation in candidates), default=0.0)

    def _report(self, surgeon: Surgeon, history: History) -> BottleneckReport:
        moment = (history.num_steps, len(surgeon.lineage))
        if self._known is not None and self._known[0] == moment:
            return self._known[1]
        assert self._batches is not None
        config = EvidenceConfig(num_samples=self._config.evidence_samples, max_bytes_per_layer=self._config.score_bytes)
        self._ledger.spend("needs")
        with FlopCount() as count:
            evidence = measure_evidence(
                surgeon.model, self._batches(history.epoch), self._loss_function, config, graph=surgeon.graph
            )
        self._ledger.spend("needs", count.flops)
        self._known = moment, bottlenecks(evidence)
        return self._known[1]


def layers_at(graph: ModelGraph, place: str) -> set[str]:
    """Returns the paths of the layers that an edit at a place acts on.

    The place itself where it is a layer; of an axis those that make it; of any other module those that make its output.
    """
    axes = [channel_axis(call) for call in graph.calls if call.path == place]
    made = [group for group in graph.groups if group.name == place or any(group.leaf is axis for axis in axes)]
    return {place, *(path for group in made for path in group.producers)}
