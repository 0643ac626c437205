"""Two architectures side by side: a row for each layer in execution order, a bar as wide as its channels."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

from neuroexapt.graph import Difference, Layer, LayerChange, Status, folded
from neuroexapt.report.plots.style import ACCEPTED, FAINT, INK, QUIET, ROLLED_BACK, SMALL, WIDTH_INCHES, shortened
from neuroexapt.report.quantities import in_count, in_flops, in_relative_change

COLORS: dict[Status, str] = {
    "unchanged": "#ccd3da",
    "wider": "#0072b2",
    "narrower": "#e69f00",
    "changed": "#9a6fb0",
    "new": ACCEPTED,
    "removed": ROLLED_BACK,
}
MAX_ROWS = 45  # where there are more, runs of unchanged layers are folded

_ROW_INCHES, _BAR = 0.25, 0.74  # height of a row; of a bar in it
_HEAD_INCHES, _FOOT_INCHES = 0.95, 0.45
_NAME, _FIRST, _SECOND, _WORDS = (
    0.285,
    0.415,
    0.635,
    0.755,
)  # right end of names, middles of the bars, left end of words
_HALF = 0.1  # half the width of the widest bar
_PALE = 0.45  # share of the colour in what was
_LEAST = 0.004  # half the width of the narrowest
_NAME_LENGTH, _WORDS_LENGTH = 30, 38  # characters


def plot_difference(found: Difference, first: str, second: str) -> Figure:
    """Returns the picture.

    Args:
        found: From ``difference``.
        first: What to call the first architecture.
        second: And the second.
    """
    rows = list(found.layers) if len(found.layers) <= MAX_ROWS else list(folded(found.layers, keep=2))
    height = _HEAD_INCHES + _FOOT_INCHES + _ROW_INCHES * max(len(rows), 1)
    figure = Figure(figsize=(WIDTH_INCHES, height), facecolor="white")
    axes = figure.add_axes((0.0, _FOOT_INCHES / height, 1.0, 1.0 - (_HEAD_INCHES + _FOOT_INCHES) / height))
    axes.set_axis_off()
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(len(rows) - 0.5 if rows else 0.5, -0.5)
    widest = max((layer.width for change in found.layers for layer in _sides(change)), default=1) or 1
    _draw_ties(axes, rows, widest)
    for place, row in enumerate(rows):
        if isinstance(row, int):
            text = f"… {row} more layers, unchanged"
            axes.text(_NAME, place, text, ha="right", va="center", fontsize=SMALL, color=QUIET, style="italic")
        else:
            _draw_row(axes, place, row, widest)
    _draw_head(figure, found, (first, second), height)
    _draw_key(figure, found)
    return figure


def paler(color: str) -> str:
    """Returns a colour mixed with white, for what was."""
    red, green, blue = (1.0 - _PALE * (1.0 - part) for part in to_rgb(color))
    return to_hex((red, green, blue))


def _sides(change: LayerChange) -> list[Layer]:
    return [layer for layer in (change.before, change.after) if layer is not None]


def _half(layer: Layer, widest: int) -> float:
    return max(_HALF * layer.width / widest, _LEAST)


def _draw_ties(axes: Axes, rows: Sequence[LayerChange | int], widest: int) -> None:
    """A pale band from every layer on the left to the same one on the right, and a thread down each side."""
    for middle in (_FIRST, _SECOND):
        axes.plot([middle, middle], [-0.3, len(rows) - 0.7], color=FAINT, linewidth=0.8, zorder=0)
    for place, row in enumerate(rows):
        if not isinstance(row, int) and row.before is not None and row.after is not None:
            left, right = _FIRST + _half(row.before, widest), _SECOND - _half(row.after, widest)
            axes.plot([left, right], [place, place], color=COLORS[row.status], alpha=0.35, linewidth=1.0, zorder=0)


def _draw_row(axes: Axes, place: int, row: LayerChange, widest: int) -> None:
    layer = row.layer
    color = QUIET if row.status == "unchanged" else INK
    name = shortened(layer.path or "(the model itself)", _NAME_LENGTH)
    kind = shortened(layer.kind, 18)
    axes.text(_NAME, place - 0.18, name, ha="right", va="center", fontsize=SMALL, color=color, parse_math=False)
    axes.text(_NAME, place + 0.27, kind, ha="right", va="center", fontsize=SMALL - 2.5, color=QUIET, parse_math=False)
    for middle, side in ((_FIRST, row.before), (_SECOND, row.after)):
        if side is not None:
            is_past = side is row.before and row.after is not None and row.status != "unchanged"
            _draw_bar(axes, middle, place, side, row.status, widest, is_past)
    axes.text(
        _WORDS,
        place,
        "\n".join(textwrap.wrap(_words(row), _WORDS_LENGTH, max_lines=2, placeholder=" …")),
        ha="left",
        va="center",
        fontsize=SMALL - 1,
        linespacing=0.95,
        color=COLORS[row.status] if row.status != "unchanged" else QUIET,
        parse_math=False,
    )


def _draw_bar(axes: Axes, middle: float, place: int, layer: Layer, status: Status, widest: int, is_past: bool) -> None:
    """What something was is drawn in a paler colour than what it is."""
    half = _half(layer, widest)
    bar = FancyBboxPatch(
        (middle - half, place - _BAR / 2),
        2 * half,
        _BAR,
        boxstyle="round,pad=0,rounding_size=0.003",
        mutation_aspect=60.0,
        facecolor=paler(COLORS[status]) if is_past else COLORS[status],
        edgecolor="white",
        linewidth=0.6,
        hatch="////" if status == "removed" else None,
    )
    axes.add_patch(bar)
    fits = half > 0.014
    axes.text(
        middle if fits else middle + half + 0.006,
        place,
        str(layer.width) if layer.width else "",
        ha="center" if fits else "left",
        va="center",
        fontsize=SMALL - 1,
        color="white" if fits and not is_past and status != "unchanged" else INK,
    )


def _words(row: LayerChange) -> str:
    if row.status in ("new", "removed"):
        sign = "+" if row.status == "new" else "-"
        own = row.layer.num_parameters
        return row.status + (f", {sign}{in_count(own)} parameters" if own else "")
    return ", ".join(row.changes)


def _draw_head(figure: Figure, found: Difference, names: tuple[str, str], height: float) -> None:
    line = 0.19 / height
    top = 1.0 - 0.24 / height
    for index, middle in enumerate((_FIRST, _SECOND)):
        lines = (
            (shortened(names[index], 26), SMALL + 2, INK, "bold"),
            (f"{in_count(found.num_parameters[index])} parameters", SMALL, INK, "normal"),
            (f"{in_flops(found.flops[index])} per sample", SMALL, INK, "normal"),
        )
        for number, (text, size, color, weight) in enumerate(lines):
            figure.text(
                middle, top - number * line, text, ha="center", va="center",
                fontsize=size, color=color, weight=weight, parse_math=False,
            )  # fmt: skip
    for number, (pair, name) in enumerate(((found.num_parameters, "parameters"), (found.flops, "FLOPs")), start=1):
        text = f"{in_relative_change(pair[1] - pair[0], pair[0])} {name}"
        figure.text(_WORDS, top - number * line, text, ha="left", va="center", fontsize=SMALL, color=INK)
    text = "channels of each layer,\nin the order of execution"
    figure.text(_NAME, top - line, text, ha="right", va="center", fontsize=SMALL, color=QUIET)


def _draw_key(figure: Figure, found: Difference) -> None:
    shown = [status for status in COLORS if found.count(status)]
    figure.legend(
        handles=[Patch(facecolor=COLORS[status], label=f"{found.count(status)} {status}") for status in shown],
        loc="lower center",
        ncols=max(len(shown), 1),
        fontsize=SMALL,
        frameon=False,
        handlelength=1.1,
        labelcolor=INK,
    )
