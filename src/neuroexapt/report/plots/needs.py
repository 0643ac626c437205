"""A network coloured by what it needs: a box for each layer, its edges, and what its units tell of the label."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch, PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from neuroexapt.analysis import BottleneckReport, ModelEvidence
from neuroexapt.analysis.needs import LayerNeeds
from neuroexapt.analysis.needs.quantities import INFORMATION
from neuroexapt.report.plots.style import FAINT, INK, NORMAL, QUIET, SMALL, VALIDATION, WIDTH_INCHES, calm, shortened

COLORS: Mapping[str, str] = {  # Okabe and Ito, 2008
    "wider": "#0072b2",
    "deeper": "#e69f00",
    "path": "#cc79a7",
    "attention": "#009e73",
    "less": "#5b6570",
}
MAX_ROWS = 60  # layers drawn; of more, those with the strongest needs
MAX_ARCS = 120  # edges that pass layers by; of more, those that lose most, then the shortest

_ROW_INCHES, _BAR = 0.25, 0.74  # height of a row; of a box in it
_HEAD_INCHES, _FOOT_INCHES, _NOTE_INCHES = 0.85, 1.0, 0.15
_NAME, _MIDDLE, _HALF, _LEAST = 0.245, 0.365, 0.1, 0.012  # right end of names; middle and half widths of boxes
_ARCS, _REACH, _WORDS = 0.47, 0.12, 0.6  # where arcs bend, from least to most; left end of words
_PANEL = (0.79, 0.97)
_NOTE_LENGTH, _MAX_NOTES = 150, 6
_LOSS = "#b0457f"  # an edge that loses information


def plot_needs(evidence: ModelEvidence, report: BottleneckReport, name: str) -> Figure:
    """Returns the picture.

    Args:
        evidence: From ``measure_evidence``.
        report: Its ``bottlenecks``.
        name: What to call the network.
    """
    drawn = _most_telling(report.layers)
    rows = {layer.path: row for row, layer in enumerate(drawn)}
    arcs, num_arcs = _arcs(evidence, report, rows)
    notes = _notes(evidence, report, len(report.layers) - len(drawn), num_arcs - len(arcs))
    foot = _FOOT_INCHES + _NOTE_INCHES * len(notes)
    height = _HEAD_INCHES + foot + _ROW_INCHES * max(len(drawn), 3)
    figure = Figure(figsize=(WIDTH_INCHES, height), facecolor="white")
    bottom, size = foot / height, 1.0 - (_HEAD_INCHES + foot) / height
    axes = figure.add_axes((0.0, bottom, 1.0, size))
    axes.set_axis_off()
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(max(len(drawn), 3) - 0.5, -0.5)
    _draw_steps(axes, evidence, report, rows)
    for source, target, loss in arcs:
        _draw_arc(axes, drawn, rows[source], rows[target], loss)
    for row, layer in enumerate(drawn):
        _draw_layer(axes, row, layer, drawn)
    _draw_information(figure, evidence, drawn, (bottom, size))
    _draw_head(figure, name, height)
    _draw_key(figure, notes, height)
    return figure


def shade(color: str, score: float) -> str:
    """Returns a colour mixed with white: white up to a score of 0.5, the colour itself from 0.9 on."""
    strength = min(max((score - 0.5) / 0.4, 0.0), 1.0)
    red, green, blue = (1.0 - strength * (1.0 - part) for part in to_rgb(color))
    return to_hex((red, green, blue))


def _most_telling(layers: Sequence[LayerNeeds]) -> list[LayerNeeds]:
    """Returns at most ``MAX_ROWS`` layers in their order, the weakest needs left out."""

    def strength(layer: LayerNeeds) -> tuple[bool, float]:
        need = layer.needs.get(layer.strongest)
        return (need.is_raised, need.score) if need else (False, 0.0)

    kept = {layer.path for layer in sorted(layers, key=strength, reverse=True)[:MAX_ROWS]}
    return [layer for layer in layers if layer.path in kept]


def _arcs(
    evidence: ModelEvidence, report: BottleneckReport, rows: Mapping[str, int]
) -> tuple[list[tuple[str, str, float]], int]:
    """Returns (source, target, loss that was told from 0) of edges that pass layers by, and how many there are."""
    order = {layer.path: place for place, layer in enumerate(evidence.layers)}
    losses = _losses(report)
    edges = [
        (layer.path, target, losses.get((layer.path, target), 0.0))
        for layer in evidence.layers
        for target in layer.successors
        if layer.path in rows and target in rows and abs(order[target] - order[layer.path]) > 1
    ]
    edges.sort(key=lambda edge: (-edge[2], abs(order[edge[1]] - order[edge[0]])))
    return edges[:MAX_ARCS], len(edges)


def _losses(report: BottleneckReport) -> dict[tuple[str, str], float]:
    """Returns the losses that are told from 0, by edge."""
    return {(e.source, e.target): e.value.value for e in report.edges if e.value.low > 0}


def _half(layer: LayerNeeds, drawn: Sequence[LayerNeeds]) -> float:
    """Half the width of a box: as the logarithm of its units, from one unit to those of the widest layer."""
    widest = max(other.width for other in drawn)
    return _LEAST + (_HALF - _LEAST) * math.log(max(layer.width, 1)) / math.log(max(widest, 2))


def _draw_steps(axes: Axes, evidence: ModelEvidence, report: BottleneckReport, rows: Mapping[str, int]) -> None:
    """A line from each layer to the next; dotted where layers between them are not drawn."""
    paths = list(rows)
    order = {layer.path: place for place, layer in enumerate(evidence.layers)}
    losses = _losses(report)
    for row, (above, below) in enumerate(pairwise(paths)):
        is_near = order[below] == order[above] + 1
        if is_near and below not in evidence.layer(above).successors:
            continue
        loss = losses.get((above, below), 0.0)
        axes.plot(
            [_MIDDLE, _MIDDLE],
            [row, row + 1],
            color=_LOSS if loss else QUIET,
            linewidth=_thickness(loss),
            linestyle="-" if is_near else ":",
            zorder=1,
        )


def _draw_arc(axes: Axes, drawn: Sequence[LayerNeeds], source: int, target: int, loss: float) -> None:
    span = abs(target - source) / max(len(drawn) - 1, 1)
    bend = _ARCS + _REACH * math.sqrt(span)
    ends = [(_MIDDLE + _half(drawn[row], drawn), row) for row in (source, target)]
    points = [ends[0], (bend, ends[0][1]), (bend, ends[1][1]), ends[1]]
    path = Path(points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
    axes.add_patch(
        PathPatch(
            path,
            facecolor="none",
            edgecolor=_LOSS if loss else FAINT,
            linewidth=_thickness(loss),
            alpha=0.9,
            zorder=2 if loss else 1,
        )
    )


def _thickness(loss: float) -> float:
    return 0.9 + min(2.5 * loss, 2.5)


def _draw_layer(axes: Axes, row: int, layer: LayerNeeds, drawn: Sequence[LayerNeeds]) -> None:
    need = layer.needs.get(layer.strongest)
    color = shade(COLORS[layer.strongest], need.score) if need else "white"
    is_raised = need is not None and need.is_raised
    half = _half(layer, drawn)
    axes.add_patch(
        FancyBboxPatch(
            (_MIDDLE - half, row - _BAR / 2),
            2 * half,
            _BAR,
            boxstyle="round,pad=0,rounding_size=0.003",
            mutation_aspect=60.0,
            facecolor=color,
            edgecolor=INK if is_raised else FAINT,
            linewidth=1.6 if is_raised else 0.7,
            zorder=3,
        )
    )
    is_dark = np.dot(to_rgb(color), (0.299, 0.587, 0.114)) < 0.55
    axes.text(
        _MIDDLE, row, str(layer.width), ha="center", va="center", fontsize=SMALL - 1, zorder=4,
        color="white" if is_dark else INK,
    )  # fmt: skip
    axes.text(
        _NAME, row, shortened(layer.path or "(the model itself)", 32), ha="right", va="center", fontsize=SMALL,
        color=INK if is_raised else QUIET, parse_math=False,
    )  # fmt: skip
    raised = sorted(((n.score, name) for name, n in layer.needs.items() if n.is_raised), reverse=True)
    words = ", ".join(f"{name} {score:.2f}" for score, name in raised)
    axes.text(_WORDS, row, shortened(words, 34), ha="left", va="center", fontsize=SMALL, color=INK, zorder=5)


def _draw_information(
    figure: Figure, evidence: ModelEvidence, drawn: Sequence[LayerNeeds], place: tuple[float, float]
) -> None:
    """A line along the depth beside the boxes: what can be read about the label, in nats, with its interval."""
    found = [evidence.layer(layer.path).values.get(INFORMATION) for layer in drawn]
    if not any(found):
        return
    panel = figure.add_axes((_PANEL[0], place[0], _PANEL[1] - _PANEL[0], place[1]))
    calm(panel, grid="x")
    panel.set_ylim(max(len(drawn), 3) - 0.5, -0.5)
    panel.set_yticks([])
    panel.spines["left"].set_visible(False)
    numbers = np.array([(e.low, e.value, e.high) if e else (math.nan,) * 3 for e in found], dtype=float)
    places = np.arange(len(drawn))
    panel.fill_betweenx(places, numbers[:, 0], numbers[:, 2], color=VALIDATION, alpha=0.15, linewidth=0)
    panel.plot(numbers[:, 1], places, color=VALIDATION, linewidth=1.4, marker="o", markersize=3)
    low, high = float(np.nanmin(numbers)), float(np.nanmax(numbers))
    panel.set_xlim(min(0.0, low), high * 1.08 if high > 0 else 1.0)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=4))
    panel.set_xlabel("nats", fontsize=SMALL, color=QUIET, labelpad=1)


def _draw_head(figure: Figure, name: str, height: float) -> None:
    top, columns = 1.0 - 0.25 / height, 1.0 - 0.62 / height
    figure.text(
        0.02, top, f"{shortened(name, 60)}: where it is short", fontsize=NORMAL + 2, weight="bold",
        va="center", color=INK, parse_math=False,
    )  # fmt: skip
    for place, align, text in (
        (_NAME, "right", "layers in the order\nof execution"),
        (_MIDDLE, "center", "units\n(log scale)"),
        (_WORDS, "left", "stands out:\nneed and score"),
        ((_PANEL[0] + _PANEL[1]) / 2, "center", "what can be read of the\nlabel, 95 % interval"),
    ):
        figure.text(place, columns, text, ha=align, va="center", fontsize=SMALL, color=QUIET)


def _draw_key(figure: Figure, notes: Sequence[str], height: float) -> None:
    handles: list[Patch | Line2D] = [Patch(facecolor=color, label=name) for name, color in COLORS.items()]
    handles += [
        Patch(facecolor="white", edgecolor=INK, linewidth=1.6, label="stands out"),
        Line2D([], [], color=QUIET, linewidth=0.9, label="hands on to"),
        Line2D([], [], color=_LOSS, linewidth=2.2, label="loses information"),
    ]
    figure.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, (0.12 + _NOTE_INCHES * len(notes)) / height),
        ncols=len(handles),
        fontsize=SMALL,
        frameon=False,
        handlelength=1.2,
        columnspacing=1.3,
        labelcolor=INK,
    )
    for number, note in enumerate(reversed(notes)):
        figure.text(
            0.02, (0.1 + _NOTE_INCHES * number) / height, note, fontsize=SMALL - 1, color=QUIET, va="center",
            parse_math=False,
        )  # fmt: skip


def _notes(evidence: ModelEvidence, report: BottleneckReport, num_layers: int, num_arcs: int) -> list[str]:
    notes = ["Colour: the strongest need of a layer, paler for weaker; white is the middle of this model or below."]
    if num_layers:
        notes.append(f"{num_layers} of {len(report.layers)} layers, those with the weakest needs, are not drawn.")
    if num_arcs:
        notes.append(f"{num_arcs} more edges that pass layers by are not drawn.")
    lines = [line for note in (*report.notes, *evidence.notes) for line in textwrap.wrap(note, _NOTE_LENGTH)]
    room = _MAX_NOTES - len(notes)
    return [*notes, *lines[:room], *([f"and {len(lines) - room} more lines of notes"] if len(lines) > room else [])]
