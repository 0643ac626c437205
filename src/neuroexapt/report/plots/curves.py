"""Loss and accuracy over all compute spent, with growth events marked where their trials began."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from neuroexapt.events import EpochFinished
from neuroexapt.report.growth import GrowthEvent
from neuroexapt.report.plots.style import (
    ACCEPTED,
    FAINT,
    GRID,
    INK,
    QUIET,
    ROLLED_BACK,
    SMALL,
    TRAINING,
    VALIDATION,
    calm,
    legend,
    new_figure,
)
from neuroexapt.report.quantities import decimal_scale, in_percent
from neuroexapt.report.summary import RunSummary

_LOG_FROM_RATIO = 8.0  # largest loss over smallest; from here on a linear axis would flatten the end of the run
_ROOM = 0.045  # of the axis: what a mark with its number takes
_NUM_LEVELS = 4  # heights at which marks can stand


def plot_curves(summary: RunSummary) -> Figure:
    """Returns loss (above) and accuracy (below) along the main line; grey dashes are the epochs not taken."""
    figure = new_figure(6.0)
    loss, accuracy = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    unit, prefix = decimal_scale(summary.total_flops)
    line = summary.main_line
    compute = [epoch.total_flops / unit for epoch in line]
    loss.plot(compute, [e.train_loss for e in line], color=TRAINING, linewidth=1.3, label="training loss")
    loss.plot(compute, [e.validation_loss for e in line], color=VALIDATION, linewidth=1.9, label="validation loss")
    percent = [100 * e.validation_accuracy for e in line]
    accuracy.plot(compute, percent, color=VALIDATION, linewidth=1.9, label="validation accuracy")
    _draw_not_taken(loss, accuracy, summary, unit)
    _mark_chosen(accuracy, summary, unit)
    calm(loss, y_label="mean loss (nats)")
    calm(accuracy, x_label=f"compute spent so far ({prefix}FLOP)", y_label="accuracy (%)")
    _use_log_where_it_helps(loss, [x for e in line for x in (e.train_loss, e.validation_loss)])
    _mark_events(loss, accuracy, summary, unit)
    loss.set_xlim(left=0)
    if line:
        legend(loss, "upper right")
        legend(accuracy, "lower right")
    return figure


def _compute_at(summary: RunSummary, position: float) -> float:
    """Returns the FLOPs spent up to a position in fractions of epochs; within an epoch, in proportion."""
    line = summary.main_line
    return float(np.interp(position, [0, *(e.epoch for e in line)], [0, *(e.total_flops for e in line)]))


def _before(summary: RunSummary, event: GrowthEvent) -> EpochFinished | None:
    """Returns the last epoch on the main line before the edits were made."""
    earlier = [e for e in summary.main_line if e.epoch < event.first_epoch]
    return earlier[-1] if earlier else None


def _draw_not_taken(loss: Axes, accuracy: Axes, summary: RunSummary, unit: float) -> None:
    """Draws each comparison's other arm, at the same epochs' places, so that the gap between the arms is the gain."""
    place = {e.epoch: e.total_flops / unit for e in summary.main_line}
    label = "the other arm of a trial (not taken)"
    for event in summary.growth:
        parting = _before(summary, event)
        arm = ([parting] if parting else []) + list(event.not_taken)
        if not event.not_taken:
            continue
        compute = [place.get(e.epoch, e.total_flops / unit) for e in arm]
        for axes, values in (
            (loss, [e.validation_loss for e in arm]),
            (accuracy, [100 * e.validation_accuracy for e in arm]),
        ):
            axes.plot(compute, values, color=QUIET, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1.8, label=label)
            axes.plot(compute[-1], values[-1], marker="o", markersize=2.6, color=QUIET, zorder=1.9)
        label = "_one entry in the legend is enough"


def _mark_chosen(accuracy: Axes, summary: RunSummary, unit: float) -> None:
    finished = summary.finished
    if finished is None:
        return
    chosen = [e for e in summary.main_line if e.epoch == finished.chosen_epoch]
    if chosen:
        label = f"chosen model, epoch {finished.chosen_epoch}: {in_percent(finished.test_accuracy)} on the test data"
        accuracy.plot(
            chosen[-1].total_flops / unit,
            100 * finished.test_accuracy,
            linestyle="none",
            marker="D",
            markersize=6,
            color=INK,
            label=label,
        )


def _mark_events(loss: Axes, accuracy: Axes, summary: RunSummary, unit: float) -> None:
    """Marks each event above the upper panel, with its number and a thin line through both."""
    places = [_compute_at(summary, event.position) / unit for event in summary.growth]
    levels = _levels(places, _ROOM * summary.total_flops / unit)
    for event, place, level in zip(summary.growth, places, levels, strict=True):
        for axes in (loss, accuracy):
            axes.axvline(place, color=FAINT if event.outcome == "accepted" else GRID, linewidth=0.8, zorder=1)
        _mark_event(loss, event, place, 1.03 + 0.075 * level)


def _levels(places: Sequence[float], room: float) -> list[int]:
    """Returns for each mark, left to right, the lowest of four heights at which it has ``room`` to its left."""
    last = [-math.inf] * _NUM_LEVELS
    levels = []
    for place in places:
        free = [level for level in range(_NUM_LEVELS) if place - last[level] >= room]
        levels.append(free[0] if free else last.index(min(last)))
        last[levels[-1]] = place
    return levels


def _mark_event(axes: Axes, event: GrowthEvent, place: float, height: float) -> None:
    colour = {"accepted": ACCEPTED, "rolled back": ROLLED_BACK}.get(event.outcome, QUIET)
    axes.plot(
        place,
        height,
        transform=axes.get_xaxis_transform(),
        clip_on=False,
        marker={"accepted": "^", "rolled back": "X"}.get(event.outcome, "o"),
        markersize=7.5,
        markerfacecolor=colour if event.outcome == "accepted" else "white",
        markeredgecolor=colour,
        markeredgewidth=1.2,
    )
    axes.annotate(
        str(event.number),
        (place, height),
        xycoords=axes.get_xaxis_transform(),
        xytext=(6, -3),
        textcoords="offset points",
        fontsize=SMALL,
        color=colour,
        annotation_clip=False,
    )


def _use_log_where_it_helps(axes: Axes, losses: list[float]) -> None:
    usable = [loss for loss in losses if math.isfinite(loss)]
    if not usable or min(usable) <= 0 or max(usable) / min(usable) < _LOG_FROM_RATIO:
        axes.set_ylim(bottom=0)
        return
    axes.set_yscale("log")
    axes.set_ylabel("mean loss (nats, log scale)")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
