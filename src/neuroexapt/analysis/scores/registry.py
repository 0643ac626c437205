"""The table of growth scores: a new one is a file in this folder and a line here."""

from __future__ import annotations

from neuroexapt.analysis.scores.base import Score
from neuroexapt.analysis.scores.gradient_norm import GradientNorm
from neuroexapt.analysis.scores.gradmax import GradMax
from neuroexapt.analysis.scores.residual import Residual
from neuroexapt.analysis.scores.tiny import Tiny

SCORES: dict[str, Score] = {score.name: score for score in (Residual(), GradientNorm(), Tiny(), GradMax())}
