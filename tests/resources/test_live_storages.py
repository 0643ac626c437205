"""Counting what is alive: views once, what is freed no more, the peak kept; on real and on fake tensors alike."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from neuroexapt.resources import LiveStorages, scratch_bytes


def work(count: LiveStorages) -> tuple[int, int, int]:
    with count:
        x = torch.ones(100)
        y = x.view(10, 10).t() * 2
        three = count.num_bytes
        z = torch.cat([x, y.flatten()])
        del x, y
        two = count.num_bytes
        del z
    return three, two, count.num_bytes


def test_views_count_once_and_what_is_freed_counts_no_more() -> None:
    count = LiveStorages()
    assert work(count) == (800, 800, 0)
    assert count.peak_bytes >= 1600


def test_fakes_count_as_real_tensors_do() -> None:
    real, fake = LiveStorages(), LiveStorages()
    expected = work(real)
    with FakeTensorMode():
        assert work(fake) == expected
    assert fake.peak_bytes == real.peak_bytes


def test_what_is_set_apart_is_in_the_total_alone() -> None:
    count, kept = LiveStorages(), torch.ones(50)
    count.set_apart(kept)
    count.set_apart(kept)
    with count:
        other = torch.ones(10)
    assert (count.num_bytes, count.apart_bytes, count.total_peak_bytes) == (40, 200, 240)
    del kept, other
    assert (count.num_bytes, count.apart_bytes) == (0, 0)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
def test_the_scratch_of_convolutions_is_known_on_cpu_only_and_not_for_plain_products() -> None:
    x, weight = torch.ones(4, 32, 8, 8), torch.ones(32, 32, 3, 3)
    convolution = torch.ops.aten.convolution.default
    arguments = (x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    assert scratch_bytes(convolution, arguments, x) == 2 * x.nbytes + weight.nbytes
    assert scratch_bytes(convolution, (x.double(), weight, None, [1, 1]), x) == 0
    assert scratch_bytes(convolution, (x.to("meta"), weight, None, [1, 1]), x) == 0
    assert scratch_bytes(convolution, (x, weight[:, :, :1, :1], None, [1, 1]), x) == 0
    assert scratch_bytes(torch.ops.aten.add.Tensor, (x, x), x) == 0
