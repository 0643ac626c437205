"""Growth against training from scratch, everything counted; see ``benchmarks/RESULTS.md``, which this writes.

Rows go to ``benchmarks/results/growth/<suite>.jsonl``, and runs that have one are not repeated, so a run that was
stopped goes on. One thread; about 25 minutes of one core for all.
"""

from __future__ import annotations

import argparse

import torch
from growth.arms import ARMS
from growth.harness import run_suite, tune
from growth.page import write_page
from growth.store import Store
from growth.suites import SUITES


def main() -> None:
    """Reads the arguments, runs and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suites", nargs="*", choices=list(SUITES), default=list(SUITES))
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, help="how many, from 0; those of the suite by default")
    parser.add_argument("--tune", action="store_true", help="try the learning rates instead")
    parser.add_argument("--fresh", action="store_true", help="measure the chosen arms again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.suites:
        task, store = SUITES[name], Store(name)
        if options.tune:
            tune(task, store)
            continue
        if options.fresh:
            store.drop(options.arms)
        if missing := run_suite(task, store, options.arms, options.seeds):
            print(f"{name}: {missing}")
    write_page()


if __name__ == "__main__":
    main()
