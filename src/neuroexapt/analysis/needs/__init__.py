"""From evidence to needs: where a network is short of units, depth, ways or context, and where it has too much."""

from neuroexapt.analysis.needs.bottlenecks import KEPT, RAISED, bottlenecks
from neuroexapt.analysis.needs.report import BottleneckReport, LayerNeeds, Need
from neuroexapt.analysis.needs.table import NEEDS

__all__ = ["KEPT", "NEEDS", "RAISED", "BottleneckReport", "LayerNeeds", "Need", "bottlenecks"]
