"""The table of estimators: a new one is a file in this folder and a line here."""

from __future__ import annotations

from neuroexapt.analysis.estimators.base import Estimator
from neuroexapt.analysis.estimators.saturation import Saturation

ESTIMATORS: dict[str, Estimator] = {e.name: e for e in (Saturation(),)}
