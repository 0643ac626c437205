"""Measuring a model: evidence with a value, a spread and a sample count, in a stated number of bytes."""

from neuroexapt.analysis.evidence import Evidence
from neuroexapt.analysis.gradient_evidence import gradient_evidence
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
    "gradient_evidence",
    "meanings",
    "measure_evidence",
]
