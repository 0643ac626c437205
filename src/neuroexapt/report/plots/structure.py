"""How the network's shape changed: parameters, weight layers and the width of every channel group, over epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from neuroexapt.events import EpochFinished
from neuroexapt.report.plots.style import INK, NORMAL, QUIET, SMALL, VALIDATION, calm, new_figure, shortened, title
from neuroexapt.report.quantities import in_count
from neuroexapt.report.summary import RunSummary

MAX_PANELS = 12  # channel groups that get a panel each; more of them share one table
MAX_ROWS = 36  # rows of the table; groups that never changed give way first
_COLUMNS = 4
_ROW_INCHES = 0.22


def plot_structure(summary: RunSummary) -> Figure:
    """Returns parameters and weight layers above, and below them the widths as small panels or as a table.

    The run must have finished an epoch.
    """
    line = summary.main_line
    names = list(dict.fromkeys(name for epoch in line for name in epoch.widths))
    as_table = len(names) > MAX_PANELS
    rows = min(len(names), MAX_ROWS) if as_table else math.ceil(len(names) / _COLUMNS)
    below = 0.9 + rows * _ROW_INCHES if as_table else 0.4 + rows * 1.3
    figure = new_figure(2.3 + (below if names else 0.0))
    if not names:
        _plot_size(figure, line)
        return figure
    above = figure.add_subfigure((grid := figure.add_gridspec(2, 1, height_ratios=[2.3, below]))[0])
    widths = figure.add_subfigure(grid[1])
    _plot_size(above, line)
    if as_table:
        _plot_table(widths, line, _most_telling(line, names), len(names))
    else:
        _plot_panels(widths, line, names, rows)
    return figure


def _plot_size(figure: Figure | SubFigure, line: Sequence[EpochFinished]) -> None:
    parameters, layers = figure.subplots(1, 2)
    epochs = [e.epoch for e in line]
    for axes, values, name in (
        (parameters, [e.num_parameters for e in line], "parameters"),
        (layers, [e.num_layers for e in line], "weight layers"),
    ):
        axes.step(epochs, values, where="post", color=VALIDATION, linewidth=1.7)
        calm(axes, x_label="epoch")
        title(axes, f"{name}: {in_count(values[0])}" + (f" to {in_count(values[-1])}" if len(set(values)) > 1 else ""))
        axes.set_ylim(0, max(values) * 1.15)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _plot_panels(figure: SubFigure, line: Sequence[EpochFinished], names: Sequence[str], rows: int) -> None:
    """Draws one panel per channel group: units over epochs, blue where the width changed."""
    panels = figure.subplots(rows, _COLUMNS, sharex=True, squeeze=False)
    for index, axes in enumerate(panels.flat):
        if index >= len(names):
            axes.set_visible(False)
            continue
        known = [(e.epoch, e.widths[names[index]]) for e in line if names[index] in e.widths]
        epochs, units = zip(*known, strict=True)
        changed = units[0] != units[-1]
        axes.step(epochs, units, where="post", color=VALIDATION if changed else QUIET, linewidth=1.5)
        calm(axes, grid="y")
        text = f"{units[0]} to {units[-1]}" if changed else f"{units[0]}"
        title(axes, f"{shortened(names[index], 22)}: {text}", size=SMALL)
        axes.tick_params(labelbottom=True, labelsize=SMALL - 1)
        axes.set_ylim(0, max(units) * 1.25)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    figure.supxlabel("epoch", fontsize=NORMAL, color=INK)
    figure.supylabel("units in the channel group", fontsize=NORMAL, color=INK)


def _most_telling(line: Sequence[EpochFinished], names: Sequence[str]) -> list[str]:
    """Returns at most ``MAX_ROWS`` names in their order; those that never changed are left out first."""
    changed = {name for name in names if len({e.widths[name] for e in line if name in e.widths}) > 1}
    chosen = set(sorted(names, key=lambda name: name not in changed)[:MAX_ROWS])
    return [name for name in names if name in chosen]


def _plot_table(figure: SubFigure, line: Sequence[EpochFinished], names: Sequence[str], num_groups: int) -> None:
    """Draws rows of groups against columns of epochs; colour is the width over its first, a number each change."""
    axes = figure.subplots()
    widths = np.array([[e.widths.get(name, np.nan) for e in line] for name in names], dtype=float)
    first = np.array([row[np.isfinite(row)][0] for row in widths])[:, None]
    ratio = widths / first
    largest = max(float(np.nanmax(np.abs(np.log2(ratio)))), 0.25)
    image = axes.imshow(
        np.log2(ratio), aspect="auto", cmap="RdBu", vmin=-2.2 * largest, vmax=2.2 * largest, interpolation="nearest"
    )
    calm(axes, x_label="epoch", grid="none")
    _write_changes(axes, widths)
    shown = MaxNLocator(nbins=10, integer=True).tick_values(0, len(line) - 1)
    ticks = [int(tick) for tick in shown if 0 <= tick < len(line)]
    axes.set_xticks(ticks, [str(line[tick].epoch) for tick in ticks])
    labels = [shortened(name, 34) for name in names]
    axes.set_yticks(range(len(names)), labels, fontsize=SMALL - 1, color=INK, parse_math=False)
    left_out = num_groups - len(names)
    title(axes, "units in each channel group" + (f" ({left_out} more are not shown)" if left_out else ""))
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
    bar.set_ticks([0.0, largest], labels=["as first", f"× {2**largest:.2g}"])
    bar.ax.set_ylim(min(0.0, float(np.nanmin(np.log2(ratio)))), largest)
    bar.ax.tick_params(labelsize=SMALL - 1, colors=QUIET, length=2)
    bar.outline.set_visible(False)


def _write_changes(axes: Axes, widths: np.ndarray) -> None:
    for row, units in enumerate(widths):
        for column, size in enumerate(units):
            if np.isfinite(size) and (column == 0 or units[column - 1] != size):
                axes.text(column, row, f"{size:.0f}", fontsize=SMALL - 1.5, color=INK, ha="center", va="center")
