"""Where to grow: the policies against the uniform baseline, and against never growing, on digits.

Finished runs are not repeated; they stay in ``--out``. The table goes to ``benchmarks/results/placement.md``, commands,
verdicts and closing figures to ``placement.json`` beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from runs import compare

ARMS = {
    "uniform": ["--policy", "uniform"],
    "greedy": ["--policy", "greedy"],
    "thompson": ["--policy", "thompson"],
    "never grown": ["--max-events", "0"],
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/placement"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    compare("placement", ARMS, options.out, options.seeds)
