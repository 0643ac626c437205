"""The main job on 10,000 CIFAR-10 images, grown and never grown; one seed, 20 epochs.

The data are two Parquet files in ``$NEUROEXAPT_DATA/cifar10`` (``../shared/data`` by default). Results as in
``placement.py``.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from runs import compare

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10"))
    options = parser.parse_args()
    data = os.environ.get("NEUROEXAPT_DATA", "../shared/data")
    common = ["--data", f"{data}/cifar10", "--limit", "10000", "--epochs", "20"]
    compare("cifar10", {"uniform": common, "never grown": [*common, "--max-events", "0"]}, options.out, seeds=1)
