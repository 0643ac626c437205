import pytest
import torch

from neuroexapt.errors import InputError
from neuroexapt.resources import pick_device


@pytest.fixture(name="machine")
def fixture_machine(monkeypatch):
    """Pretends that the machine has so many GPUs, and MPS or not."""

    def pretend(num_gpus, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: num_gpus - 1)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("num_gpus", "mps", "name", "device"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (2, True, "auto", "cuda:1"),
        (2, False, "cpu", "cpu"),
        (2, False, "cuda", "cuda:1"),
        (2, False, "cuda:0", "cuda:0"),
        (0, True, "mps", "mps"),
    ],
)
def test_a_wish_that_can_be_met_gives_the_device(machine, num_gpus, mps, name, device):
    machine(num_gpus, mps)
    assert pick_device(name) == torch.device(device)


@pytest.mark.parametrize(
    ("num_gpus", "mps", "name", "message"),
    [
        (0, False, "cuda", r"device: found cuda, but .*\. Available: cpu; `auto` takes the fastest"),
        (0, True, "cuda:1", r"device: found cuda:1, but .*\. Available: cpu, mps;"),
        (2, False, "cuda:2", r"found cuda:2, needed an index from 0 to 1\. Available: cpu, cuda:0, cuda:1;"),
        (1, False, "mps", r"found mps, which this machine does not offer\. Available: cpu, cuda:0;"),
    ],
)
def test_a_wish_that_cannot_be_met_says_what_there_is(machine, num_gpus, mps, name, message):
    machine(num_gpus, mps)
    with pytest.raises(InputError, match=message):
        pick_device(name)


@pytest.mark.parametrize(
    "name", ["", "gpu", "CPU", "cpu:0", "cuda:", "cuda:-1", "cuda:99999", "cuda:1 ", "cuda:١", "mps\n"]
)
def test_a_word_that_means_nothing_is_refused_with_the_words_that_do(machine, name):
    machine(2)
    with pytest.raises(InputError, match=r"device: found .*, needed auto, cpu, cuda, cuda:<index> or mps"):
        pick_device(name)
