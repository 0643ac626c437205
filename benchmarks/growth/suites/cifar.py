"""A subset of CIFAR-10, mean-pooled to 16 x 16, each pixel standardised by the training images.

Read from ``$NEUROEXAPT_DATA/cifar10`` (``../shared/data`` beside the repository by default). These files hold JPEGs, so
figures are not comparable with published ones.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch.nn.functional as F

import neuroexapt as nx
from growth.task import Data, Split
from neuroexapt.data import LabelledImages, load_data

_BESIDE = Path(__file__).parents[3] / ".." / "shared" / "data"


def pooled_cifar(num_train: int, num_validation: int, num_test: int) -> Data | str:
    """Returns images as float32 [n, 3, 16, 16], or a sentence where the data set is not there."""
    folder = Path(os.environ.get("NEUROEXAPT_DATA") or _BESIDE) / "cifar10"
    if not folder.is_dir():
        return "there is no cifar10 in $NEUROEXAPT_DATA, nor in ../shared/data beside the repository."
    total = num_train + num_validation
    config = nx.DataConfig(source=str(folder), limit=total, validation_fraction=num_validation / total)
    found = load_data(config, seed=0)

    def pooled(part: LabelledImages, limit: int) -> Split:
        return Split(F.avg_pool2d(part.images[:limit].float() / 255, 2), part.labels[:limit])

    splits = [
        pooled(part, limit)
        for part, limit in ((found.train, num_train), (found.validation, num_validation), (found.test, num_test))
    ]
    mean, deviation = splits[0].inputs.mean(0), splits[0].inputs.std(0)
    train, validation, test = (Split((s.inputs - mean) / deviation, s.targets) for s in splits)
    return Data(train, validation, test)


def flat(data: Data | str) -> Data | str:
    """Returns the same images as rows."""
    if isinstance(data, str):
        return data
    return Data(*(Split(s.inputs.flatten(1), s.targets) for s in (data.train, data.validation, data.test)))
