"""Estimators of what a layer's rows show: one file for each."""

from neuroexapt.analysis.estimators.base import Estimator, Value
from neuroexapt.analysis.estimators.registry import ESTIMATORS

__all__ = ["ESTIMATORS", "Estimator", "Value"]
