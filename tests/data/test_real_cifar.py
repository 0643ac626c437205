"""The real CIFAR-10, where it is on this machine: ``$NEUROEXAPT_DATA`` or ``../shared/data`` beside the repository."""

import os
from pathlib import Path

import pytest
import torch

from neuroexapt.config import DataConfig
from neuroexapt.data import load_data

DATA = Path(os.environ.get("NEUROEXAPT_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data")
CIFAR = DATA / "cifar10"


@pytest.mark.skipif(not CIFAR.is_dir(), reason="no cifar10 in $NEUROEXAPT_DATA or ../shared/data")
def test_a_limited_cifar10_has_its_known_statistics() -> None:
    data = load_data(DataConfig(source=str(CIFAR), limit=1000), seed=0)
    assert data.describe() == "cifar10: 850 train / 150 validation / 10,000 test, 3x32x32, 10 classes"
    assert data.class_names[:3] == ("airplane", "automobile", "bird")
    assert torch.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.mean.tolist() == pytest.approx([0.491, 0.482, 0.447], abs=0.02)  # of all 50,000; these are 850
