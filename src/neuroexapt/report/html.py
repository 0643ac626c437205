"""A run's report: one HTML file that opens anywhere, without a network and without scripts."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from neuroexapt.report.atomic import write_atomically
from neuroexapt.report.journal import read_journal
from neuroexapt.report.page import CAPTIONS, make_page
from neuroexapt.report.plots import save_plots
from neuroexapt.report.summary import RunSummary, summarize

JOURNAL_NAME = "journal.jsonl"
REPORT_NAME = "report.html"


def write_report(run_dir: Path) -> Path:
    """Reads ``journal.jsonl`` of a run, finished or not, writes ``plots/*.png`` and ``report.html``; returns its path.

    Raises:
        InputError: The journal is missing, damaged, or tells of no run.
    """
    summary = summarize(read_journal(run_dir / JOURNAL_NAME))
    plots = save_plots(summary, run_dir / "plots")
    report = run_dir / REPORT_NAME
    write_atomically(report, render(summary, plots).encode())
    return report


def render(summary: RunSummary, plots: dict[str, Path]) -> str:
    """Returns the page with the pictures inside; whatever a name or description contains is text, never markup."""
    environment = Environment(
        loader=PackageLoader("neuroexapt", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures = [(*CAPTIONS[name], b64encode(path.read_bytes()).decode()) for name, path in plots.items()]
    return environment.get_template("template.html.j2").render(page=make_page(summary), figures=figures)
