"""What each edit was expected to bring, and what it brought."""

from __future__ import annotations

import math
import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from neuroexapt.report.plots.style import (
    ACCEPTED,
    INK,
    PREDICTED,
    QUIET,
    ROLLED_BACK,
    SMALL,
    calm,
    new_figure,
)
from neuroexapt.report.quantities import in_gain
from neuroexapt.report.summary import GrowthEvent, RunSummary

_BAR = 0.3  # of a row's height
_LABEL_WIDTH = 44  # characters


def plot_gains(summary: RunSummary) -> Figure:
    """Returns two bars per edit, first edit on top: predicted gain above, measured gain below it."""
    figure = new_figure(1.25 + 0.62 * max(len(summary.growth), 1))
    axes = figure.subplots()
    for event in summary.growth:
        _draw_bar(axes, event.number - _BAR / 2, event.predicted_gain, "predicted", event)
        _draw_bar(axes, event.number + _BAR / 2, event.measured_gain, "measured", event)
    calm(axes, x_label="gain: validation loss without the edit minus with it (nats); to the right is better", grid="x")
    axes.axvline(0, color=QUIET, linewidth=0.8)
    axes.set_yticks(
        [event.number for event in summary.growth],
        [_label(event) for event in summary.growth],
        color=INK,
        parse_math=False,
    )
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(len(summary.growth), 1) + 0.6, 0.4)
    axes.margins(x=0.16)  # room for the numbers at the ends of the bars
    _explain(figure)
    return figure


def _label(event: GrowthEvent) -> str:
    what = textwrap.wrap(event.description, _LABEL_WIDTH, max_lines=2, placeholder=" …")
    return "\n".join([f"{event.number} · epoch {event.epoch}", *what])


def _draw_bar(axes: Axes, height: float, gain: float | None, kind: str, event: GrowthEvent) -> None:
    if gain is None or not math.isfinite(gain):
        missing = "no verdict yet" if event.outcome == "undecided" else "not measured"
        text, length = ("not predicted" if kind == "predicted" else missing), 0.0
    else:
        text, length = in_gain(gain), gain
    if kind == "predicted":
        axes.barh(height, length, _BAR, color=PREDICTED)
    elif event.outcome == "accepted":
        axes.barh(height, length, _BAR, color=ACCEPTED)
    else:
        axes.barh(height, length, _BAR, facecolor="white", edgecolor=ROLLED_BACK, linewidth=1.2)
    axes.annotate(
        text,
        (length, height),
        xytext=(4 if length >= 0 else -4, 0),
        textcoords="offset points",
        ha="left" if length >= 0 else "right",
        va="center",
        fontsize=SMALL - 0.5,
        color=QUIET if kind == "predicted" else INK,
    )


def _explain(figure: Figure) -> None:
    entries: list[Patch | Line2D] = [
        Patch(facecolor=PREDICTED, label="predicted"),
        Patch(facecolor=ACCEPTED, label="measured, accepted"),
        Patch(facecolor="white", edgecolor=ROLLED_BACK, label="measured, rolled back"),
    ]
    figure.legend(handles=entries, loc="outside upper left", ncols=3, fontsize=SMALL, frameon=False, labelcolor=INK)
