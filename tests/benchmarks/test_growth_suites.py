"""What the benchmarks of growth count and say is right: intervals, FLOPs, rows, and the page they make."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from growth.bars import Bar
from growth.fixed import train_fixed
from growth.ours import grow_ours
from growth.page import PAGE, page_text
from growth.peer import counted_flops
from growth.statistics import mean_sd, paired
from growth.store import Store
from growth.suites import SUITES
from growth.training import built, flops_per_sample, probe

MLP = SUITES["b1-digits-mlp"]


def row(arm: str, seed: int, score: float, **other: object) -> dict[str, object]:
    """A row with all that the page reads."""
    facts = {"flops": {"training": 95, "validation": 5}, "total_flops": 100, "parameters": 7, "peak_rss_mib": 1.0}
    seconds = {"cpu": 2.0, "wall": 2.0, "growth_cpu": 0.5, "growth_wall": 0.5}
    return {"arm": arm, "seed": seed, "score": score, "seconds": seconds, "curve": [], **facts, **other}


def test_an_interval_of_paired_differences_is_students():
    found = paired({0: 3.0, 1: 5.0, 2: 7.0, 9: 100.0}, {0: 2.0, 1: 3.0, 2: 4.0})
    assert (found.mean, found.num_pairs) == (2.0, 3)
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert not found.is_effect
    assert paired({0: 3.0, 1: 5.0}, {0: 1.0, 1: 2.999}).is_effect


def test_one_pair_has_no_interval_and_no_pair_no_difference():
    assert str(paired({0: 3.0}, {0: 1.0})) == "+2.00"
    assert not paired({0: 3.0}, {0: 1.0}).is_effect
    assert paired({0: 3.0}, {1: 1.0}) is None


def test_a_deviation_is_that_of_a_sample():
    assert mean_sd([1.0, 3.0]) == "2.00 ± 1.41"
    assert mean_sd([1.0]) == "1.00"


def test_the_page_has_what_the_rows_say(tmp_path):
    store = Store(MLP.name, tmp_path)
    for seed, score in enumerate((90.0, 91.0, 92.0)):
        store.add(row("scratch = ours", seed, score))
        store.add(row("ours", seed, score + 2 + 0.1 * seed))
    line = next(line for line in page_text(tmp_path).splitlines() if line.startswith("| E | ours |"))
    assert "93.10 ± 1.10 | **+2.10 ± 0.25** |" in line
    assert "| 5.0: validation 5.0 |" in line
    assert "| 25.0 |" in line  # of the time


def test_a_bar_that_is_missed_says_no(tmp_path):
    store = Store(MLP.name, tmp_path)
    for seed in range(3):
        store.add(row("ours", seed, 90.0 + seed))
        store.add(row("small", seed, 89.0))
    assert "+2.00 ± 2.48 | yes |" in Bar(arm="ours", at_least=2.0, than="small").row(store)
    assert "+2.00 ± 2.48 | **no** |" in Bar(arm="ours", at_least=2.1, than="small").row(store)
    assert "25.0 % | **no** |" in Bar(arm="ours", max_overhead=0.05).row(store)
    assert Bar(arm="ours", at_least=0.0, than="scratch").row(store) == ""


def test_rows_are_found_again_and_forgotten_by_arm(tmp_path):
    Store("a", tmp_path).add({"arm": "x", "seed": 1})
    again = Store("a", tmp_path)
    assert again.find("x", 1) is not None
    assert again.find("x", 2) is None
    again.drop(["x"])
    assert Store("a", tmp_path).rows == []


def test_the_page_is_the_one_that_the_stored_rows_make():
    assert PAGE.read_text(encoding="utf-8") == page_text()


@pytest.mark.parametrize("name", ["b1-digits-mlp", "b1-digits-resnet"])
def test_the_peer_is_counted_as_we_are(name):
    task = SUITES[name]
    data, model = task.load(), built(task, task.full, seed=0)
    assert counted_flops(model, probe(data, 1)) == flops_per_sample(model, data)


def test_flops_are_three_forward_passes_of_a_multiply_and_an_add_for_each_weight():
    spent = train_fixed(dataclasses.replace(MLP, steps=3), MLP.load(), 0, MLP.small)["total_flops"]
    assert spent == 3 * 64 * 3 * 2 * (64 * 4 + 4 * 4 + 4 * 10)


def test_growth_counts_every_step_with_the_network_of_that_step():
    config = dataclasses.replace(
        MLP.ours, triggers=("schedule",), schedule_epochs=(1.0,), trial_epochs=0.0, overhead_fraction=None
    )
    data, per_epoch = MLP.load(), 1131 // 64
    facts = grow_ours(dataclasses.replace(MLP, steps=2 * per_epoch), data, 0, config)
    small, wide = (2 * (64 * w + w * w + 10 * w) for w in (4, 8))
    assert facts["sizes"] == {"0": 8, "2": 8}
    assert facts["flops"]["training"] == per_epoch * 64 * 3 * (small + wide)
    assert facts["total_flops"] == facts["flops"]["training"] + facts["flops"]["surgery"]
    assert torch.isfinite(torch.tensor(facts["loss"]))
