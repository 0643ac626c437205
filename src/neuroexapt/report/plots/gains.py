"""What each growth event was expected to bring, and what it brought."""

from __future__ import annotations

import math
import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from neuroexapt.report.growth import GrowthEvent
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
from neuroexapt.report.quantities import in_gain, in_signed_percent
from neuroexapt.report.summary import RunSummary

_BAR = 0.3  # of a row's height
_LABEL_WIDTH = 44  # characters


def plot_gains(summary: RunSummary) -> Figure:
    """Returns two bars per event, first event on top: the predicted gain, below it the measured one with its interval.

    Gains are in percent of the control's loss. A tick is at what was asked for.
    """
    figure = new_figure(1.25 + 0.62 * max(len(summary.growth), 1))
    axes = figure.subplots()
    for event in summary.growth:
        _draw_bar(axes, event.number - _BAR / 2, event.relative_prediction, "predicted", event)
        _draw_bar(axes, event.number + _BAR / 2, event.relative_gain, "measured", event)
        _draw_interval(axes, event)
    calm(
        axes,
        x_label="gain: fall of the validation loss against the control (% of its loss); to the right is better",
        grid="x",
    )
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
    several = f" · {len(event.edits)} edits" if len(event.edits) > 1 else ""
    return "\n".join([f"{event.number} · epoch {event.position:.4g}{several}", *what])


def _draw_bar(axes: Axes, height: float, gain: float | None, kind: str, event: GrowthEvent) -> None:
    if gain is None or not math.isfinite(gain):
        text, length = _missing(event, kind), 0.0
    else:
        text, length = in_signed_percent(gain), 100 * gain
    if kind == "predicted":
        axes.barh(height, length, _BAR, color=PREDICTED)
    elif event.outcome == "accepted":
        axes.barh(height, length, _BAR, color=ACCEPTED)
    else:
        axes.barh(height, length, _BAR, facecolor="white", edgecolor=ROLLED_BACK, linewidth=1.2)
    end = length if kind == "predicted" else _measured_end(event, length)
    axes.annotate(
        text,
        (end, height),
        xytext=(4 if length >= 0 else -4, 0),
        textcoords="offset points",
        ha="left" if length >= 0 else "right",
        va="center",
        fontsize=SMALL - 0.5,
        color=QUIET if kind == "predicted" else INK,
    )


def _missing(event: GrowthEvent, kind: str) -> str:
    if kind == "predicted":
        return "not predicted" if event.predicted_gain is None else f"{in_gain(event.predicted_gain)} nats"
    return "no verdict yet" if event.outcome == "undecided" else "not measured"


def _measured_end(event: GrowthEvent, length: float) -> float:
    """Returns the far end of all that is drawn for a measured gain, in percent."""
    ends = [length, *(100 * end for end in event.interval or ())]
    ends += [100 * event.needed] if event.needed is not None else []
    return max(ends) if length >= 0 else min(ends)


def _draw_interval(axes: Axes, event: GrowthEvent) -> None:
    """Draws the interval as a whisker over the measured bar, and what was asked for as a tick across it."""
    height = event.number + _BAR / 2
    if event.interval is not None:
        low, high = (100 * end for end in event.interval)
        axes.plot([low, high], [height, height], color=INK, linewidth=0.9, marker="|", markersize=5, label="_interval")
    if event.needed is not None:
        needed = 100 * event.needed
        axes.plot([needed, needed], [height - _BAR / 2, height + _BAR / 2], color=INK, linewidth=2.4, label="_needed")


def _explain(figure: Figure) -> None:
    entries: list[Patch | Line2D] = [
        Patch(facecolor=PREDICTED, label="predicted"),
        Patch(facecolor=ACCEPTED, label="measured, accepted"),
        Patch(facecolor="white", edgecolor=ROLLED_BACK, label="measured, rolled back"),
        Line2D([], [], color=INK, linewidth=0.9, marker="|", markersize=5, label="95 % interval"),
        Line2D([], [], color=INK, linestyle="none", marker="|", markersize=9, markeredgewidth=2.4, label="asked for"),
    ]
    figure.legend(handles=entries, loc="outside upper left", ncols=5, fontsize=SMALL, frameon=False, labelcolor=INK)
