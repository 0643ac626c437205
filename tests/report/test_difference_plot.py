"""The picture of two architectures: bars as wide as layers, names and totals that can be read, nothing cut off."""

from __future__ import annotations

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import nn

from neuroexapt.graph import Difference, difference, trace
from neuroexapt.report.plots import plot_difference
from neuroexapt.report.plots.difference import COLORS, MAX_ROWS, paler


def chain(*widths: int) -> nn.Module:
    return nn.Sequential(*[nn.Linear(a, b) for a, b in zip((8, *widths), (*widths, 5), strict=True)])


def compared(before: nn.Module, after: nn.Module) -> Difference:
    x = torch.randn(2, 8)
    return difference(trace(before, x), trace(after, x))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in [*figure.texts, *figure.axes[0].texts]]


def test_bars_are_as_wide_as_their_layers_and_coloured_by_what_happened() -> None:
    figure = plot_difference(compared(chain(20, 10), chain(40, 10)), "a", "b")
    bars = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    assert [bar.get_width() / bars[0].get_width() for bar in bars] == pytest.approx([1, 2, 0.5, 0.5, 0.25, 0.25])
    colors = [to_hex(bar.get_facecolor()) for bar in bars]
    wider, changed, unchanged = (COLORS[status] for status in ("wider", "changed", "unchanged"))
    assert colors == [paler(wider), wider, paler(changed), changed, unchanged, unchanged]


def test_names_changes_and_totals_are_written() -> None:
    found = compared(chain(20), nn.Sequential(*chain(40), nn.Linear(5, 5)))
    shown = texts(plot_difference(found, "first $x$", "second"))
    for part in ("first $x$", "second", "285 parameters", "595 parameters", "+109 % parameters", "width 20 → 40", "0"):
        assert part in shown
    assert any(text.startswith("new, +30 parameters") for text in shown)


def test_a_long_chain_is_folded_and_text_stays_inside_the_picture() -> None:
    widths = [16] * (MAX_ROWS + 5)
    changed = [*widths]
    changed[20] = 24
    figure = plot_difference(compared(chain(*widths), chain(*changed)), "w" * 60, "package.module:function")
    assert any("more layers, unchanged" in text for text in texts(figure))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    for text in [*figure.texts, *figure.axes[0].texts]:
        box = text.get_window_extent(canvas.get_renderer())
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def test_two_models_without_layers_give_a_picture_too() -> None:
    figure = plot_difference(compared(nn.ReLU(), nn.ReLU()), "a", "b")
    assert "0 parameters" in texts(figure)
