"""The score against the FLOPs spent so far: what one would have if the run ended there."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from growth.arms import ARMS
from growth.store import Store
from growth.task import Task

_SHOWN = 40  # points of a mean curve


def draw(task: Task, store: Store, path: Path) -> None:
    """Draws the mean over seeds of every arm that has rows."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name in ARMS:
        curves = [np.array(row["curve"]).T for row in store.of(name)]
        if not curves:
            continue
        flops = np.linspace(max(c[0][0] for c in curves), min(c[0][-1] for c in curves), _SHOWN)
        mean = np.mean([np.interp(flops, *curve) for curve in curves], axis=0)
        axes.plot(flops / 1e9, mean, label=f"{ARMS[name].letter} {name}", linewidth=2.2 if name == "ours" else 1.2)
    axes.set(xlabel="GFLOP, everything counted", ylabel=task.score.name, title=task.title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
