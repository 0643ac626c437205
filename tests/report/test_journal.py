import logging
import os
from datetime import datetime
from pathlib import Path

import pytest

from neuroexapt.errors import InputError, TrainingError
from neuroexapt.events import CheckpointSaved, RunStarted
from neuroexapt.report import JournalWriter, read_journal


@pytest.fixture
def path(tmp_path, events):
    journal = tmp_path / "run" / "journal.jsonl"
    writer = JournalWriter(journal)
    for event in events:
        writer.send(event)
    return journal


def without_time(path: Path) -> list[str]:
    return [line.rpartition(', "time"')[0] for line in path.read_text().splitlines()]


def test_what_was_sent_is_what_is_read(path, events):
    assert read_journal(path) == events


def test_every_record_is_one_line_with_the_time_in_utc(path, events):
    import json

    lines = path.read_text().splitlines()
    assert len(lines) == len(events)
    assert all(datetime.fromisoformat(json.loads(line)["time"]).utcoffset().total_seconds() == 0 for line in lines)


def test_a_torn_last_line_is_left_out_and_said(path, events, caplog):
    path.write_bytes(path.read_bytes()[:-40])
    with caplog.at_level(logging.WARNING):
        assert read_journal(path) == events[:-1]
    assert f"line {len(events)}: torn" in caplog.text


def test_a_torn_last_line_of_zeros_is_left_out_too(path, events):
    path.write_bytes(path.read_bytes() + b"\x00" * 30)
    assert read_journal(path) == events


def test_appending_after_a_torn_line_cuts_it_off_first(path, events, caplog):
    path.write_bytes(path.read_bytes()[:-40])
    JournalWriter(path).send(events[-1])
    assert read_journal(path) == events
    assert "cut off" in caplog.text


def test_a_whole_last_line_without_its_newline_is_kept(path, events):
    path.write_bytes(path.read_bytes()[:-1])
    assert read_journal(path) == events
    JournalWriter(path).send(events[-1])
    assert read_journal(path) == [*events, events[-1]]


def test_garbage_in_the_middle_is_an_error_that_names_the_line(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "%%% not json", *lines[3:]]) + "\n")
    with pytest.raises(InputError, match=r"line 4: '%%% not json' is not a JSON record"):
        read_journal(path)


def test_an_unknown_event_is_an_error_that_names_the_line(path, events):
    path.write_text(path.read_text() + '{"event": "Miracle"}\n')
    with pytest.raises(InputError, match=rf"line {len(events) + 1}: .*unknown event 'Miracle'"):
        read_journal(path)


def test_a_missing_journal_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"no journal there\. Name the folder of a run"):
        read_journal(tmp_path / "journal.jsonl")


@pytest.mark.parametrize("torn", [False, True])
def test_rewind_then_append_equals_never_having_written_the_rest(path, events, tmp_path, torn):
    kept = 5
    if torn:
        path.write_bytes(path.read_bytes()[:-40])
    other = JournalWriter(tmp_path / "other.jsonl")
    for event in (*events[:kept], *events[2:4]):
        other.send(event)
    writer = JournalWriter(path)
    writer.rewind(kept)
    for event in events[2:4]:
        writer.send(event)
    assert without_time(path) == without_time(other.path)


def test_rewind_to_more_events_than_there_are_keeps_all_and_says_so(path, events, caplog):
    JournalWriter(path).rewind(len(events) + 3)
    assert read_journal(path) == events
    assert f"holds {len(events)} of the {len(events) + 3} events" in caplog.text


def test_rewind_to_nothing_empties_the_journal_and_one_that_is_not_there_stays_away(path, tmp_path):
    JournalWriter(path).rewind(0)
    assert read_journal(path) == []
    JournalWriter(tmp_path / "none.jsonl").rewind(0)
    assert not (tmp_path / "none.jsonl").exists()


def test_a_full_disk_leaves_the_journal_as_it_was(path, events, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    writer = JournalWriter(path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match=r"No space left on device\. Free space there and resume"):
        writer.send(CheckpointSaved(epoch=1, path="x", is_best=False))
    assert read_journal(path) == events


def test_a_config_value_that_json_does_not_know_is_written_as_text(tmp_path, make_run):
    started = make_run().events[0]
    assert isinstance(started, RunStarted)
    started.config["folder"] = Path("runs")
    writer = JournalWriter(tmp_path / "journal.jsonl")
    writer.send(started)
    (read,) = read_journal(writer.path)
    assert isinstance(read, RunStarted)
    assert read.config["folder"] == "runs"
