"""Handwritten digits, 75 % and 25 % for testing, stratified, pixels over 16; validation comes out of the 75 %."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from growth.task import Data, Split

NUM_VALIDATION = 216  # 12 % of all digits


def digits(*shape: int) -> Data:
    """Returns 1,131 training, 216 validation and 450 test digits, each of ``shape``."""
    images, labels = load_digits(return_X_y=True)
    rest, test, rest_labels, test_labels = train_test_split(
        images / 16.0, labels, test_size=0.25, random_state=0, stratify=labels
    )
    train, validation, train_labels, validation_labels = train_test_split(
        rest, rest_labels, test_size=NUM_VALIDATION, random_state=0, stratify=rest_labels
    )

    def split(inputs: Tensor, targets: Tensor) -> Split:
        return Split(torch.tensor(inputs, dtype=torch.float32).view(-1, *shape), torch.tensor(targets))

    return Data(split(train, train_labels), split(validation, validation_labels), split(test, test_labels))
