import subprocess
import sys

import matplotlib as mpl
import pytest

from neuroexapt.events import EpochFinished
from neuroexapt.report import save_plots, summarize
from neuroexapt.report.plots import plot_curves, plot_gains, plot_structure
from neuroexapt.report.plots.curves import _levels

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def test_every_plot_is_saved_as_png(make_grown_run, tmp_path):
    paths = save_plots(summarize(make_grown_run().events), tmp_path / "plots")
    assert list(paths) == ["curves", "structure", "gains"]
    assert all(path.read_bytes().startswith(PNG_SIGNATURE) for path in paths.values())
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["curves.png", "gains.png", "structure.png"]


def test_plots_that_would_be_empty_are_not_drawn(make_run, tmp_path):
    run = make_run()
    assert save_plots(summarize(run.events), tmp_path) == {}
    run.epoch(1)
    assert list(save_plots(summarize(run.events), tmp_path)) == ["curves", "structure"]


def test_the_curve_goes_through_the_epochs_that_count(make_grown_run):
    summary = summarize(make_grown_run().events)
    loss = plot_curves(summary).axes[0]
    (line,) = [line for line in loss.lines if line.get_label() == "validation loss"]
    assert list(line.get_ydata()) == [epoch.validation_loss for epoch in summary.main_line]


def test_accepted_edits_are_filled_triangles_and_others_hollow_crosses(make_grown_run):
    loss = plot_curves(summarize(make_grown_run().events)).axes[0]
    marks = [(line.get_marker(), line.get_markerfacecolor()) for line in loss.lines if line.get_marker() in "^X"]
    assert [marker for marker, _ in marks] == ["^", "^", "X", "^", "^", "^"]
    assert marks[2][1] == "white"
    assert "white" not in {face for marker, face in marks if marker == "^"}


@pytest.mark.parametrize(("num_groups", "num_axes"), [(5, 2 + 8), (12, 2 + 12), (13, 2 + 1 + 1)])
def test_many_channel_groups_share_a_table(make_grown_run, num_groups, num_axes):
    assert len(plot_structure(summarize(make_grown_run(num_groups).events)).axes) == num_axes


def test_a_table_with_too_many_groups_keeps_those_that_changed_and_says_what_is_left_out(make_grown_run):
    summary = summarize(make_grown_run(60).events)
    table = plot_structure(summary).axes[2]
    shown = {label.get_text() for label in table.get_yticklabels()}
    first, last = summary.main_line[0].widths, summary.main_line[-1].widths
    assert {name for name in last if last[name] != first[name]} <= shown
    assert table.get_title(loc="left") == "units in each channel group (24 more are not shown)"


def test_a_group_that_appears_on_the_way_is_drawn_from_there(make_run, tmp_path):
    run = make_run(13)
    run.epoch(1)
    run.widths["inserted"] = 8
    run.epoch(2)
    assert "structure" in save_plots(summarize(run.events), tmp_path)


def test_gains_have_a_bar_for_what_was_predicted_and_one_for_what_was_measured(make_grown_run):
    summary = summarize(make_grown_run().events)
    widths = [bar.get_width() for bar in plot_gains(summary).axes[0].patches]
    gains = [gain for e in summary.growth for gain in (e.predicted_gain, e.measured_gain)]
    losses = [e.control_loss for e in summary.growth for _ in range(2)]
    assert widths == pytest.approx([100 * gain / loss for gain, loss in zip(gains, losses, strict=True)])


def test_a_measured_gain_has_a_whisker_for_its_interval_and_a_tick_for_what_was_asked_for(make_run):
    run = make_run()
    run.epoch(1)
    run.step_counted(1.0, gain=0.05)
    lines = {line.get_label(): list(line.get_xdata()) for line in plot_gains(summarize(run.events)).axes[0].lines}
    assert lines["_interval"] == pytest.approx([9.0, 11.0])
    assert lines["_needed"] == pytest.approx([0.0, 0.0])


def test_an_event_is_marked_where_its_trial_began_though_no_epoch_is_told_for_its_arms(make_run):
    run = make_run()
    run.epoch(1)
    run.step_counted(1.5, gain=0.05)
    run.epoch(2)
    run.epoch(3)
    run.step_counted(3.0, gain=-0.05)
    run.epoch(4)
    summary = summarize(run.events)
    loss = plot_curves(summary).axes[0]
    places = [line.get_xdata()[0] for line in loss.lines if line.get_marker() in ("^", "X")]
    spent = [e.total_flops / 1e9 for e in summary.main_line]
    assert [e.arm for e in summary.main_line] == ["main"] * 4
    assert places == pytest.approx([(spent[0] + spent[1]) / 2, spent[2]])
    assert not [line for line in loss.lines if line.get_linestyle() == "--"]


def test_dollars_in_names_and_losses_that_are_not_finite_do_no_harm(make_run, tmp_path):
    run = make_run(3, description="widen $x_{$ by \\frac")
    run.widths = {f"$\\{name}_$": units for name, units in run.widths.items()}
    told = run.epoch(1)
    run.edit(after=1, gain=float("nan"))
    summary = summarize(run.events)
    assert isinstance(told, EpochFinished)
    assert len(save_plots(summary, tmp_path)) == 3


@pytest.mark.parametrize(
    ("places", "levels"),
    [([0, 5, 10], [0, 0, 0]), ([0, 1, 2, 5, 6], [0, 1, 2, 0, 1]), ([0, 0, 0, 0, 0], [0, 1, 2, 3, 0])],
)
def test_marks_that_would_touch_stand_at_different_heights(places, levels):
    assert _levels(places, 4.0) == levels


def test_drawing_changes_no_global_setting(make_grown_run):
    before = dict(mpl.rcParams)
    plot_curves(summarize(make_grown_run().events))
    assert dict(mpl.rcParams) == before


@pytest.mark.slow
def test_the_room_opens_without_matplotlib():
    code = (
        "import sys, neuroexapt, neuroexapt.report as r; assert 'matplotlib' not in sys.modules; "
        "r.write_report; assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
