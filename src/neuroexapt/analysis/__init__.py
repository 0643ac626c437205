"""Measuring a model: evidence with a value, a spread and a sample count, in a stated number of bytes."""

from neuroexapt.analysis.gradient_evidence import Evidence, gradient_evidence

__all__ = ["Evidence", "gradient_evidence"]
