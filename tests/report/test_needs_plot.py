"""The picture of a network by need: colours, outlines, words, edges, bounds, and nothing cut off or overlapping."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch

from analysis.made_up_evidence import chain, edge, reading
from neuroexapt.analysis import ModelEvidence, bottlenecks
from neuroexapt.report.plots import plot_needs
from neuroexapt.report.plots.needs import COLORS, MAX_ARCS, MAX_ROWS, shade


def made_up(num_layers: int, **more: object) -> ModelEvidence:
    """Layers of which later ones use their units better and tell more about the label."""
    values = [
        {"effective_rank_fraction": reading(i / num_layers), "label_information": reading(0.1 * i, 0.2)}
        for i in range(num_layers)
    ]
    return chain(*values, **more)  # type: ignore[arg-type]


def drawn(evidence: ModelEvidence, name: str = "run") -> Figure:
    return plot_needs(evidence, bottlenecks(evidence), name)


def boxes(figure: Figure) -> list[FancyBboxPatch]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in [*figure.texts, *figure.axes[0].texts]]


def test_boxes_have_the_colour_of_their_strongest_need_and_what_stands_out_is_outlined_and_told() -> None:
    figure = drawn(chain(*({"effective_rank_fraction": reading(i)} for i in range(5)), {}))
    colors = [to_hex(box.get_facecolor()) for box in boxes(figure)]
    assert colors[0] == shade(COLORS["less"], 0.9) == COLORS["less"]
    assert colors[2] == shade(COLORS["wider"], 0.5) == "#ffffff"
    assert colors[4] == shade(COLORS["wider"], 0.9)
    assert [box.get_linewidth() > 1 for box in boxes(figure)] == [True, True, False, True, True, False]
    assert [text for text in texts(figure) if text.startswith(("wider", "less"))] == [
        "less 1.00", "less 0.75", "wider 0.75", "wider 1.00",
    ]  # fmt: skip


def test_boxes_grow_with_the_logarithm_of_their_units() -> None:
    evidence = made_up(3)
    layers = tuple(replace(la, width=width) for la, width in zip(evidence.layers, (1, 10, 100), strict=True))
    widths = [box.get_width() for box in boxes(drawn(replace(evidence, layers=layers)))]
    assert widths[1] - widths[0] == pytest.approx(widths[2] - widths[1])


def test_edges_past_layers_are_arcs_and_what_loses_information_is_thicker() -> None:
    evidence = made_up(5, skips=[(0, 2), (1, 4)])
    evidence = replace(evidence, edges=(edge(0, 2, reading(0.5, 0.1)), edge(1, 4, reading(0.5, 0.9))))
    arcs = [patch for patch in drawn(evidence).axes[0].patches if isinstance(patch, PathPatch)]
    assert [arc.get_linewidth() > 2 for arc in arcs] == [True, False]
    assert len(drawn(evidence).axes[0].lines) == 4


def test_information_about_the_label_has_its_interval_and_the_panel_is_absent_without_it() -> None:
    panel = drawn(made_up(4)).axes[1]
    assert list(panel.lines[0].get_xdata()) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    low, high = panel.collections[0].get_datalim(panel.transData).intervalx
    assert (low, high) == pytest.approx((-0.2, 0.5))
    assert len(drawn(chain({}, {})).axes) == 1


def test_a_deep_network_is_bounded_and_says_what_is_left_out() -> None:
    count = MAX_ROWS + 20
    skips = [(i, j) for i in range(count) for j in range(i + 2, count)]
    figure = drawn(made_up(count, skips=skips, notes=["a long note of many words " * 90]))
    assert len(boxes(figure)) == MAX_ROWS
    assert sum(isinstance(patch, PathPatch) for patch in figure.axes[0].patches) == MAX_ARCS
    assert f"20 of {count} layers, those with the weakest needs, are not drawn." in texts(figure)
    assert any(text.endswith("more edges that pass layers by are not drawn.") for text in texts(figure))
    assert any(text.endswith("more lines of notes") for text in texts(figure))


@pytest.mark.parametrize("num_layers", [0, 1, 3, 55])
def test_text_stays_inside_the_picture_and_apart(num_layers: int) -> None:
    evidence = made_up(num_layers, skips=[(0, 2)] if num_layers > 2 else [], notes=["a note"])
    layers = tuple(replace(la, path=f"a_long_name.of_a_block.{la.path}", successors=()) for la in evidence.layers)
    figure = drawn(replace(evidence, layers=layers), "r" * 90)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    width, height = canvas.get_width_height()
    found = [t.get_window_extent(renderer) for t in [*figure.texts, *figure.axes[0].texts] if t.get_text()]
    found += [figure.legends[0].get_window_extent(renderer)]
    for box in found:
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    apart = [(a, b) for i, a in enumerate(found) for b in found[:i] if a.shrunk(1, 0.8).overlaps(b.shrunk(1, 0.8))]
    assert apart == []
