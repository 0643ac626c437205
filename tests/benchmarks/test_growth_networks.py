"""The convolutional and the character suite: their data, their networks, and the learning rate that they share."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from growth.suites import SUITES
from growth.suites.shakespeare import windows
from growth.task import Data, Split
from growth.training import Course, built

import neuroexapt as nx

RESNET, GPT = SUITES["b3-cifar-resnet"], SUITES["b4-char-gpt"]


def example(name: str) -> torch.Tensor:
    return torch.arange(128).reshape(2, 64) % 65 if name == GPT.name else torch.randn(2, 3, 16, 16)


@pytest.mark.parametrize("task", [RESNET, GPT], ids=lambda task: task.name)
def test_what_the_engine_is_offered_is_exactly_what_the_schedule_widens(task):
    graph = nx.trace(built(task, task.small, seed=0), example(task.name))
    offered = nx.candidates(graph, task.ours.kinds, growth=task.ours.widen_ratio)
    assert [mutation.axis for mutation in offered] == list(task.small)
    assert task.ours.edits_per_event == len(task.small)
    growth = task.ours.widen_ratio ** len(task.ours.schedule_epochs)
    assert {axis: growth * size for axis, size in task.small.items()} == task.full


def test_a_character_is_predicted_from_those_before_it_only():
    model, codes = built(GPT, GPT.small, seed=0), example(GPT.name)
    other = codes.clone()
    other[:, 40:] = 7
    changed = (model(codes) != model(other)).any(dim=2)
    assert not changed[:, :40].any()
    assert changed[:, 40:].any()


def test_the_text_is_cut_in_three_parts_that_do_not_meet(tmp_path, monkeypatch):
    folder = tmp_path / "tinyshakespeare"
    folder.mkdir()
    text = "".join(map(chr, range(0x100, 0x100 + 400)))  # every character once: its code is its place
    (folder / "input.txt").write_text(text, encoding="utf-8")
    monkeypatch.setenv("NEUROEXAPT_DATA", str(tmp_path))
    data = windows(8, 4)
    assert data.train.inputs[1, 0] == 4
    assert torch.equal(data.train.inputs[:, 1:], data.train.targets[:, :-1])
    places = [(int(s.inputs.min()), int(s.targets.max())) for s in (data.train, data.validation, data.test)]
    assert [begin for begin, _ in places] == [0, 360, 380]
    assert all(end < begin for (_, end), (begin, _) in itertools.pairwise(places))


@pytest.mark.parametrize("task", [RESNET, GPT], ids=lambda task: task.name)
def test_where_there_are_no_data_the_suite_says_so(task, tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROEXAPT_DATA", str(tmp_path))
    assert task.load().startswith("there is no ")


def test_the_learning_rate_falls_when_its_hold_is_over():
    task = dataclasses.replace(RESNET, warmup_steps=2, hold=0.6)
    none = Split(torch.zeros(task.batch_size, 1), torch.zeros(task.batch_size))
    course, rates = Course(task, Data(none, none, none), seed=0, steps=20), []
    for course.position.step in range(20):
        rates.append(course.learning_rate() / task.learning_rate)
    assert rates[:13] == [0.5, *[1.0] * 12]
    assert all(late < early for early, late in itertools.pairwise(rates[12:]))
    assert rates[16] == pytest.approx(0.505)
