import base64
import json
import logging

import pytest
import torch

from neuroexapt.errors import CheckpointError, InputError
from neuroexapt.resources import random_state, set_random_state, stream


@pytest.fixture(autouse=True)
def keep_the_global_generator():
    with torch.random.fork_rng(devices=[]):
        yield


def test_a_restored_state_goes_on_with_the_same_numbers_after_a_trip_through_json():
    torch.randn(3)  # leaves half of a normal pair in the generator
    text = json.dumps(random_state())
    first = [torch.rand(5), torch.randn(3), torch.randperm(10), torch.bernoulli(torch.full((9,), 0.5))]
    set_random_state(json.loads(text))
    second = [torch.rand(5), torch.randn(3), torch.randperm(10), torch.bernoulli(torch.full((9,), 0.5))]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_reading_the_state_draws_nothing():
    assert random_state() == random_state()
    assert set(random_state()) == {"cpu"} or torch.cuda.is_initialized()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"random state: found \[\], needed 'cpu' among them"),
        ({"cpu": "%%%"}, r"random state: cpu: found no base64"),
        ({"cpu": "é"}, r"random state: cpu: found no base64"),
        ({"cpu": 3}, r"random state: cpu: found no base64"),
        ({"cpu": ""}, r"random state: cpu: found 0 bytes"),
        ({"cpu": "AAAA"}, r"random state: cpu: found 3 bytes that are no state of this generator"),
        ({"cpu": base64.b64encode(b"\xff" * 5056).decode()}, r"random state: cpu: found 5056 bytes that are no state"),
    ],
)
def test_a_state_that_is_none_is_refused_and_changes_nothing(state, message):
    before = random_state()
    with pytest.raises(CheckpointError, match=message):
        set_random_state(state)
    assert random_state() == before


def test_one_bad_entry_stops_all_of_them():
    state = random_state()
    torch.rand(1)
    before = random_state()
    with pytest.raises(CheckpointError, match="cuda:0: found no base64"):
        set_random_state({**state, "cuda:0": "?"})
    assert random_state() == before


def test_the_state_of_a_device_that_is_gone_is_passed_over_with_a_warning(caplog):
    caplog.set_level(logging.WARNING)
    set_random_state({**random_state(), "cuda:77": "AAAA"})
    assert "cuda:77 is not on this machine" in caplog.text


@pytest.mark.gpu
def test_the_generators_of_all_gpus_are_restored():
    torch.rand(1, device="cuda")
    state = json.loads(json.dumps(random_state()))
    assert set(state) == {"cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))}
    first = torch.rand(9, device="cuda")
    set_random_state(state)
    assert torch.equal(first, torch.rand(9, device="cuda"))


def draw(*arguments):
    return tuple(torch.rand(4, generator=stream(*arguments)).tolist())


def test_a_stream_is_the_same_each_time_and_leaves_the_global_generator_alone():
    before = random_state()
    assert draw(0, "shuffle", 3) == draw(0, "shuffle", 3)
    assert random_state() == before


def test_streams_differ_by_seed_key_type_order_and_grouping():
    calls = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, "1"), (0, "a", "b"), (0, "b", "a"), (0, "ab"), (0, "a1", "b")]
    calls += [(-1,), (2**70,), (0, ""), (0, "", ""), (0, "s1:a"), (0, "é")]
    assert len({draw(*call) for call in calls}) == len(calls)


def test_the_seeds_of_streams_are_the_same_on_every_machine_and_in_every_version():
    assert stream(0).initial_seed() == 9549033805879814570
    assert stream(7, "shuffle", 3).initial_seed() == 2105623743108040045


def test_the_streams_of_ten_thousand_epochs_start_apart():
    assert len({stream(0, "shuffle", epoch).initial_seed() & 0xFFFFFFFF for epoch in range(10_000)}) > 9_990


@pytest.mark.parametrize("key", [1.0, None, b"a", torch.tensor(1)])
def test_a_key_that_is_neither_integer_nor_text_is_refused(key):
    with pytest.raises(InputError, match=r"stream: found the key .*, needed an integer or text"):
        stream(0, key)
