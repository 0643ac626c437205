"""The pictures of a run, of two architectures, and of what a network needs; importing this imports matplotlib."""

from neuroexapt.report.plots.curves import plot_curves
from neuroexapt.report.plots.difference import plot_difference
from neuroexapt.report.plots.gains import plot_gains
from neuroexapt.report.plots.needs import plot_needs
from neuroexapt.report.plots.save import save_difference, save_evidence, save_plots
from neuroexapt.report.plots.structure import plot_structure

__all__ = [
    "plot_curves",
    "plot_difference",
    "plot_gains",
    "plot_needs",
    "plot_structure",
    "save_difference",
    "save_evidence",
    "save_plots",
]
