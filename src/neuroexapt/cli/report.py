"""``neuroexapt report``: draw a run's report again from its journal, also for a run that was killed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from neuroexapt.cli.run_folder import JOURNAL
from neuroexapt.errors import InputError
from neuroexapt.report import write_report


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "report",
        help="draw a run's report from its journal",
        description="Draw report.html and the plots of a run again, also of one that is under way or was killed.",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="folder of the run")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes ``report.html`` and the plots."""
    run_dir: Path = options.run_dir
    if not (run_dir / JOURNAL).is_file():
        raise InputError(f"{run_dir}: found no {JOURNAL}, needed the folder of a run. Start one with: neuroexapt grow.")
    try:
        print(f"report: {write_report(run_dir)}")
    except OSError as error:
        raise InputError(
            f"{run_dir}: the report cannot be written: {error}. Make room or change permissions."
        ) from error
    return 0
