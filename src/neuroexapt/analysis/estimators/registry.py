"""The table of estimators: a new one is a file in this folder and a line here."""

from __future__ import annotations

from neuroexapt.analysis.estimators.base import Estimator
from neuroexapt.analysis.estimators.context import Context
from neuroexapt.analysis.estimators.correlation import Correlation
from neuroexapt.analysis.estimators.entropy import Entropy
from neuroexapt.analysis.estimators.expressivity import Expressivity
from neuroexapt.analysis.estimators.gradient_noise import GradientNoise
from neuroexapt.analysis.estimators.info_nce import InfoNCE
from neuroexapt.analysis.estimators.label_probe import LabelInformation
from neuroexapt.analysis.estimators.rank import Rank
from neuroexapt.analysis.estimators.redundancy import Redundancy
from neuroexapt.analysis.estimators.saturation import Saturation
from neuroexapt.analysis.estimators.sensitivity import Sensitivity

ESTIMATORS: dict[str, Estimator] = {
    e.name: e
    for e in (
        Correlation(),
        Rank(),
        Redundancy(),
        Entropy(),
        Saturation(),
        GradientNoise(),
        Sensitivity(),
        Expressivity(),
        Context(),
        LabelInformation(),
        InfoNCE(),
    )
}
