"""Draws pictures and writes them as PNG."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from neuroexapt.analysis import BottleneckReport, ModelEvidence
from neuroexapt.graph import Difference
from neuroexapt.report.atomic import write_atomically
from neuroexapt.report.plots.curves import plot_curves
from neuroexapt.report.plots.difference import plot_difference
from neuroexapt.report.plots.gains import plot_gains
from neuroexapt.report.plots.needs import plot_needs
from neuroexapt.report.plots.structure import plot_structure
from neuroexapt.report.summary import RunSummary

DOTS_PER_INCH = 110

_PLOTS = {"curves": plot_curves, "structure": plot_structure, "gains": plot_gains}


def save_plots(summary: RunSummary, folder: Path) -> dict[str, Path]:
    """Writes ``curves.png``, ``structure.png`` and ``gains.png``, and returns their paths by name, in that order.

    A picture that would be empty (no epoch yet, no growth event) is not drawn and not in the result.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, plot in _PLOTS.items():
        if not (summary.growth if name == "gains" else summary.main_line):
            continue
        paths[name] = folder / f"{name}.png"
        _save(plot(summary), paths[name])
    return paths


def save_difference(found: Difference, first: str, second: str, path: Path) -> None:
    """Writes the picture of two architectures, called ``first`` and ``second``, as PNG."""
    _save(plot_difference(found, first, second), path)


def save_evidence(evidence: ModelEvidence, report: BottleneckReport, name: str, path: Path) -> None:
    """Writes the picture of a network, called ``name``, coloured by what it needs, as PNG."""
    _save(plot_needs(evidence, report, name), path)


def _save(figure: Figure, path: Path) -> None:
    content = BytesIO()
    figure.set_dpi(DOTS_PER_INCH)
    # `figure.savefig` gives the same bytes and draws twice.
    FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})  # type: ignore[no-untyped-call]
    write_atomically(path, content.getvalue())
