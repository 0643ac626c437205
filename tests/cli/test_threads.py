"""``threads`` is applied by the command and by nothing else."""

from __future__ import annotations

import os
from unittest.mock import patch

import pytest
import torch

from cli.conftest import TINY


@pytest.mark.parametrize(("asked", "set_to"), [(1, [1]), (4096, [os.cpu_count()]), (None, [])])
def test_the_command_sets_the_threads_of_torch_to_at_most_the_cores(call, tmp_path, asked, set_to):
    found: list[int] = []
    flags = [] if asked is None else ["--set", f"threads={asked}"]
    with patch.object(torch, "set_num_threads", found.append), patch("neuroexapt.cli.grow._train", lambda *_: 0):
        answer = call("grow", "--out", tmp_path / "run", *TINY, *flags)
    assert (answer.code, found) == (0, set_to)
