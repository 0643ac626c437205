"""``neuroexapt report``: draw a run's report again from its journal, also for a run that was killed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from neuroexapt.errors import InputError
from neuroexapt.report import write_report


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("report", help="draw a run's report from its journal", description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="folder of the run")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes ``report.html`` and the plots."""
    if not (options.run_dir / "journal.jsonl").is_file():
        raise InputError(f"{options.run_dir}: found no journal.jsonl, needed the folder of a run.")
    print(f"report: {write_report(options.run_dir)}")
    return 0
