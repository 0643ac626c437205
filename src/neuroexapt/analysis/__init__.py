"""Measuring a model: evidence with a value, a spread and a sample count, in a stated number of bytes."""

from neuroexapt.analysis.evidence import Evidence
from neuroexapt.analysis.gradient_evidence import gradient_evidence
from neuroexapt.analysis.measuring import LayerEvidence, ModelEvidence, meanings, measure_evidence

__all__ = ["Evidence", "LayerEvidence", "ModelEvidence", "gradient_evidence", "meanings", "measure_evidence"]
