"""Journal, summary, plots and the HTML report of a run.

``write_report`` and what begins with ``save_`` are found on first use: they bring matplotlib, which training itself
does not need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from neuroexapt.report.growth import GrowthEvent
from neuroexapt.report.headline import headline
from neuroexapt.report.journal import JournalWriter, read_journal
from neuroexapt.report.summary import RunSummary, summarize

if TYPE_CHECKING:
    from neuroexapt.report.html import write_report
    from neuroexapt.report.plots import save_difference, save_evidence, save_plots

_ON_FIRST_USE = {
    "write_report": "neuroexapt.report.html",
    "save_difference": "neuroexapt.report.plots",
    "save_evidence": "neuroexapt.report.plots",
    "save_plots": "neuroexapt.report.plots",
}

__all__ = [
    "GrowthEvent",
    "JournalWriter",
    "RunSummary",
    "headline",
    "read_journal",
    "save_difference",
    "save_evidence",
    "save_plots",
    "summarize",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ON_FIRST_USE[name]), name)
