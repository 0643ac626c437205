"""What all pictures share: colours that differ for colour-blind eyes too (Okabe and Ito, 2008), thin grids, small type.

Everything is set on the figure at hand; matplotlib's global settings are neither read for colours nor changed.
"""

from __future__ import annotations

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH_INCHES = 9.4

INK = "#24292f"
QUIET = "#6e7781"
FAINT = "#b4bbc3"
GRID = "#e4e7eb"
VALIDATION = "#0072b2"
TRAINING = "#e69f00"
ACCEPTED = "#00805e"
ROLLED_BACK = "#c8372d"
PREDICTED = "#c3cbd4"

SMALL = 8.0
NORMAL = 9.0


def new_figure(height_inches: float) -> Figure:
    """Returns an empty white figure of the report's width that lays out its own margins."""
    return Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained", facecolor="white")


def calm(axes: Axes, *, x_label: str = "", y_label: str = "", grid: str = "both") -> None:
    """Gives a panel its thin grid, two spines and labels. ``grid`` is both, x, y or none."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(which="both", colors=QUIET, labelsize=SMALL, length=2.5, width=0.6)
    axes.set_axisbelow(True)
    if grid != "none":
        axes.grid(True, axis=grid, color=GRID, linewidth=0.6)  # type: ignore[arg-type]
    axes.set_xlabel(x_label, fontsize=NORMAL, color=INK, parse_math=False)
    axes.set_ylabel(y_label, fontsize=NORMAL, color=INK, parse_math=False)


def title(axes: Axes, text: str, *, size: float = NORMAL) -> None:
    """Writes a panel's title at its left edge; a ``$`` in it stays a ``$``."""
    axes.set_title(text, loc="left", fontsize=size, color=INK, parse_math=False)


def legend(axes: Axes, place: Literal["upper right", "lower right"]) -> None:
    """Adds a small legend without a frame line over the grid."""
    axes.legend(loc=place, fontsize=SMALL, frameon=True, edgecolor="none", facecolor="white", framealpha=0.85)


def shortened(text: str, length: int) -> str:
    """Returns ``text`` with its middle left out where it is longer than ``length`` characters."""
    if len(text) <= length:
        return text
    tail = (length - 1) * 2 // 3
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"
