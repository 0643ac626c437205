import json
import re
from dataclasses import replace

import pytest

from neuroexapt.errors import InputError
from neuroexapt.events import BatchRecovered, ProposalMade, RunFinished, RunResumed, VerdictReached, event_to_json
from neuroexapt.report import JournalWriter, read_journal, summarize, write_report
from neuroexapt.report.html import render


def written(folder, events) -> str:
    writer = JournalWriter(folder / "journal.jsonl")
    for event in events:
        writer.send(event)
    path = write_report(folder)
    assert path == folder / "report.html"
    return path.read_text()


def words(events) -> str:
    """The page without its pictures, which take most of the time."""
    return render(summarize(events), {})


def test_the_report_needs_nothing_but_itself(make_grown_run, tmp_path):
    page = written(tmp_path, make_grown_run(num_epochs=12).events)
    assert "http:" not in page
    assert "https:" not in page
    assert "<script" not in page
    assert "<link" not in page
    assert "url(" not in page
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_the_report_tells_the_run_in_order(make_grown_run, tmp_path):
    page = written(tmp_path, make_grown_run(num_epochs=12).events)
    parts = [
        "grew to 6,682 in 2 accepted edits (1 rolled back)",
        "Test accuracy",
        "Compute spent",
        "Loss and accuracy over compute",
        "What each event promised",
        "Growth events",
        "rolled back</span>",
        "How it was run",
        "neuroexapt grow --out runs/digits",
        "Configuration",
        "The test data decided nothing",
    ]
    places = [page.index(part) for part in parts]
    assert places == sorted(places)


def test_markup_in_a_description_stays_text(make_grown_run):
    page = words(make_grown_run(description="<script>alert('x')</script>", num_epochs=6).events)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_growth_event_says_what_both_policies_would_have_done_and_the_runners_up(make_grown_run):
    run = make_grown_run(num_epochs=5)
    for index, event in enumerate(run.events):
        if isinstance(event, ProposalMade):
            run.events[index] = replace(event, evidence_choice=event.description)
    page = words(run.events)
    assert "uniform placement would choose: widen stem 8 -&gt; 12 channels</li>" in page
    assert "highest score per added FLOP: " in page
    assert "channels (as was done)</li>" in page
    assert "runner-up: insert a layer after stem, score 2.0e-04, cost 90 kFLOP</li>" in page
    assert "14 candidates in all, policy evidence" in page


def test_a_growth_event_says_what_scoring_took_and_was_allowed_and_what_was_not_scored(make_grown_run):
    run = make_grown_run(num_epochs=5)
    runner_up = {"description": "insert", "evidence": None, "added_flops": 5, "score": None}
    scored = {"score": "gradient_norm", "score_flops": 33_800_000, "score_flops_allowed": 65_800_000}
    for index, event in enumerate(run.events):
        if isinstance(event, ProposalMade):
            run.events[index] = replace(event, **scored, num_scored=9, runners_up=[runner_up])
    page = words(run.events)
    assert "gradient norm score " in page
    assert "took 33.8 of 65.8 MFLOP allowed" in page
    assert "14 candidates in all, 9 of them scored, policy evidence" in page
    assert "runner-up: insert, cost 5 FLOP, not scored</li>" in page


def test_an_edit_that_was_not_scored_is_not_said_to_be_predicted_as_nothing(make_grown_run):
    run = make_grown_run(num_epochs=5)
    for index, event in enumerate(run.events):
        if isinstance(event, ProposalMade):
            run.events[index] = replace(event, num_samples=0, predicted_gain=0.0, score_remark="too dear")
    page = words(run.events)
    assert "not scored</small>" in page
    assert "no candidate was scored: too dear</li>" in page
    assert summarize(run.events).growth[0].predicted_gain is None


def test_an_unfinished_run_makes_a_report_that_claims_no_test(make_grown_run):
    events = [event for event in make_grown_run(num_epochs=12).events if not isinstance(event, RunFinished)]
    page = words(events)
    assert "nothing has been tested" in page
    assert "Validation accuracy" in page


def test_a_run_that_has_only_begun_makes_a_report_too(make_run, tmp_path):
    page = written(tmp_path, make_run().events)
    assert "has not finished an epoch yet" in page
    assert "No edit was proposed" in page


def test_faults_and_resumes_are_told(make_run):
    run = make_run()
    run.epoch(1)
    run.events += [
        RunResumed(epoch=1, path="checkpoints/epoch-0001"),
        BatchRecovered(epoch=2, step=17, fault="out of memory", action="batch halved"),
    ]
    page = words(run.events)
    assert "1 time" in page
    assert "epoch 2, step 17: out of memory; batch halved" in page


def test_a_second_report_replaces_the_first_and_leaves_nothing_else(make_grown_run, tmp_path):
    first = written(tmp_path, make_grown_run(num_epochs=2).events)
    assert write_report(tmp_path).read_text() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal.jsonl", "plots", "report.html"]


def test_a_folder_without_a_journal_is_refused_and_left_as_it_was(tmp_path):
    with pytest.raises(InputError, match="no journal there"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_event_of_several_edits_says_all_its_facts(make_run):
    run = make_run()
    run.epoch(1)
    run.step_counted(1.5, gain=0.05, num_edits=2)
    page = words(run.events)
    for part in (
        "grew to 4,810 in 2 accepted edits and",
        '<td class="number">1.5</td>',
        "<div>widen stages.0.0.conv1</div><div>widen stages.0.1.conv1</div>",
        "strictness: interval 1.35",
        "+10 %<small",
        "+9.0 to +11 %",
        "asked for: +0.00 %",
        "after 12 steps of each arm",
        "2 GFLOP given up",
        "+200 parameters<small>+0.2 % FLOPs</small><small>in one: +0.020</small>",
    ):
        assert part in page, part


def test_the_report_says_where_compute_and_time_went(make_run):
    run = make_run()
    run.epoch(1)
    run.step_counted(1.0, gain=0.05)
    run.events[0].config["morphogenesis"]["overhead_fraction"] = 0.15
    run.finish(
        1,
        flops_by_purpose={"training": 30 * 10**9, "discarded": 2 * 10**9, "validation": 10**9},
        seconds_by_purpose={"training": 90.0, "discarded": 8.0, "validation": 2.0},
        predicted_bytes=41 * 2**20,
        measured_bytes=45 * 2**20,
    )
    page = words(run.events)
    assert (
        "Morphogenesis took 9.1 % of the FLOPs of training and morphogenesis together, and 10.0 % of the time" in page
    )
    assert "Against the FLOPs of training alone it took 10.0 %; overhead_fraction allowed 15.0 %." in page
    assert "arms of trials that were given up" in page
    assert 'style="width: 4.65%"' in page
    assert "evaluation for the record" in page
    assert "a training step: 41 MiB predicted, memory grew by 45 MiB" in page
    assert "4.7 % of it on arms not taken" in page


def test_a_journal_of_old_makes_a_report(make_grown_run, tmp_path):
    """Events had one ``mutation`` and no step-counted trials, and a run did not tell what it spent on what."""
    later = {"position", "mutations", "trial_steps", "strictness", "relative_gain", "low", "high", "needed", "cost"}
    later |= {"discarded_flops", "flops_by_purpose", "seconds_by_purpose", "predicted_bytes", "measured_bytes"}
    lines = []
    for event in make_grown_run(num_epochs=8).events:
        record = event_to_json(event)
        is_old = isinstance(event, ProposalMade | VerdictReached)
        record = {key: value for key, value in record.items() if key not in later}
        lines.append(json.dumps(record | ({"mutation": {"kind": "Widen"}} if is_old else {})))
    (tmp_path / "journal.jsonl").write_text("\n".join(lines) + "\n")
    events = read_journal(tmp_path / "journal.jsonl")
    page = words(events)
    assert "in 2 accepted edits" in page
    assert "<small>gain over 0 needed</small>" in page
    assert "<small>asked for: " not in page
    assert "Where the compute and the time went" not in page
    (event, _) = summarize(events).growth
    assert event.relative_gain == event.measured_gain / event.control_loss
    assert (event.position, event.interval, event.needed) == (3.0, None, None)
