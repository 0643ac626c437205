"""Measuring a model: evidence with a value, a spread and a sample count, in a stated number of bytes."""

from neuroexapt.analysis.evidence import Evidence
from neuroexapt.analysis.information_loss import EdgeEvidence
from neuroexapt.analysis.measuring import LayerEvidence, ModelEvidence, meanings, measure_evidence
from neuroexapt.analysis.needs import BottleneckReport, bottlenecks

__all__ = [
    "BottleneckReport",
    "EdgeEvidence",
    "Evidence",
    "LayerEvidence",
    "ModelEvidence",
    "bottlenecks",
    "meanings",
    "measure_evidence",
]
