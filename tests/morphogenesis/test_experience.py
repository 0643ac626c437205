"""The posterior of net gains: textbook updates, exact draws, bounded outliers, JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from morphogenesis.made_up import config
from neuroexapt.errors import ConfigError, InputError
from neuroexapt.morphogenesis.checks import read_experience
from neuroexapt.morphogenesis.experience import BEST, WORST, Belief, Experience

GAINS = [0.02, -0.01, 0.05, 0.03, 0.0]


def learnt(gains: list[float], kind: str = "Widen") -> Experience:
    experience = Experience()
    for gain in gains:
        experience.learn(kind, gain)
    return experience


def test_learning_one_by_one_is_the_posterior_of_all() -> None:
    prior, found = Belief(), learnt(GAINS).of("Widen")
    n, mean = len(GAINS), sum(GAINS) / len(GAINS)
    assert found.strength == prior.strength + n
    assert found.mean == pytest.approx((prior.strength * prior.mean + n * mean) / (prior.strength + n))
    assert found.shape == prior.shape + n / 2
    scatter = sum((gain - mean) ** 2 for gain in GAINS)
    between = prior.strength * n * (mean - prior.mean) ** 2 / (prior.strength + n)
    assert found.scale == pytest.approx(prior.scale + 0.5 * scatter + 0.5 * between)
    assert found.count == n


def test_two_outcomes_of_half_weight_that_agree_are_one() -> None:
    halves = Experience()
    halves.learn("Widen", 0.04, weight=0.5)
    halves.learn("Widen", 0.04, weight=0.5)
    one = learnt([0.04])
    for name in ("mean", "strength", "shape", "scale"):
        assert getattr(halves.of("Widen"), name) == pytest.approx(getattr(one.of("Widen"), name))


def test_the_prior_is_what_it_says_and_is_weak() -> None:
    fresh = Experience()
    assert (fresh.mean("Widen"), fresh.count("Widen")) == (0.0, 0)
    assert fresh.spread("Widen") == pytest.approx(0.05)
    assert learnt([0.04]).mean("Widen") == pytest.approx(0.02)
    many = learnt(GAINS * 20)
    assert many.mean("Widen") == pytest.approx(sum(GAINS) / len(GAINS), rel=0.02)
    assert many.spread("Widen") < 0.004
    assert many.mean("InsertLayer") == 0.0


def test_outliers_are_clipped_and_what_was_not_measured_teaches_nothing() -> None:
    assert learnt([-math.inf]) == learnt([-50.0]) == learnt([WORST])
    assert learnt([7.0]) == learnt([BEST])
    assert learnt([math.nan, math.inf]) == Experience()


def test_draws_have_the_mean_and_the_spread_of_the_posterior() -> None:
    experience, generator = learnt(GAINS), torch.Generator().manual_seed(0)
    draws = torch.tensor([experience.sample("Widen", generator) for _ in range(4000)], dtype=torch.float64)
    belief = experience.of("Widen")
    assert float(draws.mean()) == pytest.approx(belief.mean, abs=4 * belief.spread / math.sqrt(4000))
    assert float(draws.std()) == pytest.approx(belief.spread, rel=0.08)
    degrees = 2 * belief.shape  # 9: the 97.5 % quantile of Student's t is 2.262
    assert degrees == 9
    reach = 2.262 * math.sqrt(belief.scale / belief.shape / belief.strength)
    assert float(((draws - belief.mean).abs() > reach).double().mean()) == pytest.approx(0.05, abs=0.011)


def test_precisions_are_drawn_from_their_gamma_distribution() -> None:
    fresh, prior = Experience(), Belief()
    pairs = [
        [fresh.sample("Widen", torch.Generator().manual_seed(seed), aversion) for aversion in (0.0, 1.0)]
        for seed in range(2000)
    ]
    precisions = torch.tensor([1 / (plain - averse) ** 2 for plain, averse in pairs], dtype=torch.float64)
    assert float(precisions.mean()) == pytest.approx(prior.shape / prior.scale, rel=0.06)
    assert float(precisions.var()) == pytest.approx(prior.shape / prior.scale**2, rel=0.2)


def test_draws_come_from_the_generator_alone() -> None:
    experience, state = learnt(GAINS), torch.get_rng_state()
    first, second = ([experience.sample("Widen", g) for _ in range(5)] for g in (torch.Generator(), torch.Generator()))
    assert first == second
    assert len(set(first)) == 5
    assert torch.equal(torch.get_rng_state(), state)


def test_aversion_takes_standard_deviations_off_a_draw() -> None:
    experience = learnt([0.2, -0.2] * 20)
    plain, averse = (
        [experience.sample("Widen", torch.Generator().manual_seed(seed), aversion) for seed in range(50)]
        for aversion in (0.0, 2.0)
    )
    taken = [a - b for a, b in zip(plain, averse, strict=True)]
    assert sum(taken) / len(taken) == pytest.approx(2 * 0.2, rel=0.1)


def test_experience_goes_to_json_and_back_and_goes_on_learning() -> None:
    experience = learnt(GAINS)
    again = Experience.from_json(json.loads(json.dumps(experience.to_json())))
    assert again == experience
    again.learn("Widen", 0.1)
    experience.learn("Widen", 0.1)
    assert again == experience


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([1], "found a list"),
        ({"Widen": 3}, "Widen: found a int, needed mean"),
        ({"Widen": {"mean": 0.0}}, "found the keys"),
        ({"Widen": asdict(Belief()) | {"scale": 0.0}}, "needed finite numbers"),
        ({"Widen": asdict(Belief()) | {"shape": 1.0}}, "needed finite numbers"),
        ({"Widen": asdict(Belief()) | {"mean": math.nan}}, "needed finite numbers"),
        ({"Widen": asdict(Belief()) | {"strength": "1"}}, "needed finite numbers"),
    ],
)
def test_a_damaged_experience_is_refused_with_what_was_found(record: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Experience.from_json(record)


def test_a_run_begins_with_the_experience_of_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "experience.json"
    path.write_text(json.dumps(learnt(GAINS).to_json()), encoding="utf-8")
    assert read_experience(config(experience=str(path))) == learnt(GAINS)
    assert read_experience(config()) == Experience()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "FileNotFoundError"),
        ("{", "JSONDecodeError"),
        ("[]", "found a list"),
        ('{"Widen": {"mean": 1}}', r"Widen: found the keys \['mean'\]"),
        (" " * (2 << 20), "more than 1,048,576 bytes"),
    ],
)
def test_a_file_that_holds_no_experience_is_an_error_that_names_it(
    tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "experience.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"experience\.json: found no file of experience.*{message}"):
        read_experience(config(experience=str(path)))
