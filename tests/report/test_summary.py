import pytest

from neuroexapt.errors import InputError
from neuroexapt.events import MutationApplied, RunFinished, RunStarted, VerdictReached
from neuroexapt.report import headline, summarize


def arms(summary):
    return [(epoch.epoch, epoch.arm) for epoch in summary.main_line]


def test_the_main_line_takes_the_trial_of_an_accepted_edit_and_the_control_of_one_rolled_back(make_run):
    run = make_run()
    run.epoch(1)
    run.edit(after=1, gain=0.1, num_epochs=2)
    run.epoch(4)
    run.edit(after=4, gain=-0.1, num_epochs=1)
    run.epoch(6)
    summary = summarize(run.events)
    assert arms(summary) == [(1, "main"), (2, "trial"), (3, "trial"), (4, "main"), (5, "control"), (6, "main")]
    assert [event.outcome for event in summary.growth] == ["accepted", "rolled back"]
    assert [e.arm for e in summary.growth[0].not_taken] == ["control", "control"]
    assert [e.arm for e in summary.growth[1].not_taken] == ["trial"]


def test_compute_along_the_main_line_only_grows(make_grown_run):
    compute = [epoch.total_flops for epoch in summarize(make_grown_run().events).main_line]
    assert compute == sorted(compute)


def test_a_growth_event_has_what_was_predicted_and_what_was_measured(make_run):
    run = make_run()
    run.epoch(1)
    run.edit(after=1, gain=0.1, predicted=0.03)
    (event,) = summarize(run.events).growth
    assert (event.number, event.epoch, event.first_epoch) == (1, 1, 2)
    assert event.predicted_gain == 0.03
    assert event.measured_gain == pytest.approx(0.1)
    assert event.measured_gain == pytest.approx(event.control_loss - event.trial_loss)
    assert event.added_parameters == 936
    assert event.output_change == 1.2e-7
    assert event.trigger == "every 3 epochs"


def test_totals_of_a_finished_run_are_those_it_says_itself(make_grown_run):
    run = make_grown_run()
    summary = summarize(run.events)
    assert (summary.num_accepted, summary.num_rolled_back, summary.num_undecided) == (5, 1, 0)
    assert summary.test_accuracy == 0.978
    assert (summary.num_parameters_start, summary.num_parameters_end) == (4_810, 9_490)
    assert summary.seconds == 215.0


def test_the_epochs_not_taken_are_charged_for(make_run):
    run = make_run()
    run.epoch(1)
    run.edit(after=1, gain=-0.1)
    summary = summarize(run.events)
    control, trial = summary.growth[0].control[0], summary.growth[0].trial[0]
    assert summary.not_taken_flops == trial.total_flops - control.total_flops
    assert summary.total_flops == trial.total_flops


def test_an_unfinished_run_ends_at_its_latest_epoch(make_grown_run):
    events = [event for event in make_grown_run(num_epochs=8).events if not isinstance(event, RunFinished)]
    summary = summarize(events)
    assert summary.finished is None
    assert summary.test_accuracy is None
    assert summary.num_parameters_end == summary.main_line[-1].num_parameters
    assert summary.seconds == pytest.approx(10 * 2.5)


def test_an_edit_still_on_trial_is_undecided_and_the_control_counts(make_run):
    run = make_run()
    run.epoch(1)
    run.edit(after=1, gain=0.1)
    summary = summarize([event for event in run.events if not isinstance(event, VerdictReached)])
    assert summary.growth[0].outcome == "undecided"
    assert arms(summary) == [(1, "main"), (2, "control")]


def test_an_edit_that_surgery_refused_has_a_verdict_and_no_cost_in_parameters(make_run):
    run = make_run()
    run.epoch(1)
    run.edit(after=1, gain=-0.1)
    refused = [e for e in run.events if not isinstance(e, MutationApplied) and getattr(e, "arm", "") != "trial"]
    (event,) = summarize(refused).growth
    assert (event.outcome, event.added_parameters, event.trial) == ("rolled back", None, ())


def test_of_two_runs_in_one_journal_the_last_counts(make_grown_run):
    short = make_grown_run(num_epochs=2)
    assert len(summarize([*make_grown_run().events, *short.events]).main_line) == 2


def test_events_without_a_start_are_refused():
    with pytest.raises(InputError, match="none says that a run started"):
        summarize([])


def test_the_headline_of_a_finished_run_says_what_happened(make_grown_run):
    assert headline(summarize(make_grown_run().events)) == (
        "A network of 4,810 parameters grew to 9,490 in 5 accepted edits (1 rolled back) "
        "and reached 97.8 % test accuracy, chosen on validation."
    )


def test_the_headline_counts_only_the_edits_that_the_chosen_model_has(make_run):
    run = make_run()
    run.epoch(1)
    run.edit(after=1, gain=0.1)
    parameters = run.num_parameters
    run.edit(after=2, gain=0.1)
    run.num_parameters = parameters
    run.finish(chosen_epoch=2)
    sentence = headline(summarize(run.events))
    assert "grew to 5,746 in 1 accepted edit and" in sentence
    assert "1 more edit had been accepted after epoch 2" in sentence


def test_the_headline_of_an_unfinished_run_claims_no_test(make_run):
    run = make_run()
    assert "has not finished an epoch yet" in headline(summarize(run.events))
    run.epoch(1)
    run.edit(after=1, gain=-0.1)
    sentence = headline(summarize(run.events))
    assert "tried 1 edit, kept none and stands at" in sentence
    assert "validation accuracy after epoch 2. The run has not finished, so nothing has been tested." in sentence


def test_the_headline_of_a_stopped_run_says_what_stopped_it(make_run):
    run = make_run()
    run.epoch(1)
    run.finish(chosen_epoch=1, reason="out of memory")
    assert "was trained without an edit and reached" in headline(summarize(run.events))
    assert headline(summarize(run.events)).endswith("The run ended before its last epoch: out of memory.")


def test_a_start_alone_is_a_summary(make_run):
    (started,) = make_run().events
    assert isinstance(started, RunStarted)
    assert summarize([started]).main_line == ()
