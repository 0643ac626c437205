"""Growth scores: what new units would gain to first order, from what was seen at their junction."""

from neuroexapt.analysis.scores.base import Junction, JunctionShape, Score, View, sum_of
from neuroexapt.analysis.scores.registry import SCORES

__all__ = ["SCORES", "Junction", "JunctionShape", "Score", "View", "sum_of"]
