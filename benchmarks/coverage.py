"""Coverage: every model of the list is traced, permuted, edited, trained and replayed; torch-pruning beside it.

One row a model in ``--results`` (JSON lines), a table and a summary in Markdown beside it. Models that have a row are
not measured again, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from survey.model_list import FAMILIES, NAMES
from survey.report import write_report
from survey.runner import read_rows, run

RESULTS = Path(__file__).parent / "results" / "coverage.jsonl"


def main() -> None:
    """Reads the arguments, runs and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(FAMILIES), default=list(FAMILIES), help="families")
    parser.add_argument("--models", nargs="*", default=[], help="names or parts of names; all by default")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time, one thread each")
    parser.add_argument(
        "--seconds", type=float, default=300, help="of processor time for one model, torch-pruning not counted"
    )
    parser.add_argument("--peer-seconds", type=float, default=150, help="the same for each of three stages of it")
    parser.add_argument("--fresh", action="store_true", help="measure the chosen models again")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    names = [name for name in NAMES if name.partition("/")[0] in options.only]
    if options.models:
        names = [name for name in names if any(part in name for part in options.models)]
    if not names:
        parser.error("no model of the list has such a name")
    if options.fresh:
        kept = [line for line in _lines(options.results) if not any(f'"model": "{name}"' in line for name in names)]
        options.results.write_text("".join(kept), encoding="utf-8")
    run(names, options.results, options.jobs, options.seconds, options.peer_seconds)
    write_report(read_rows(options.results), options.results.with_suffix(".md"), options.seconds, options.peer_seconds)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []


if __name__ == "__main__":
    main()
