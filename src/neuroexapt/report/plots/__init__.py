"""The pictures of a run; importing this imports matplotlib."""

from neuroexapt.report.plots.curves import plot_curves
from neuroexapt.report.plots.gains import plot_gains
from neuroexapt.report.plots.save import save_plots
from neuroexapt.report.plots.structure import plot_structure

__all__ = ["plot_curves", "plot_gains", "plot_structure", "save_plots"]
