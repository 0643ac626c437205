"""The digits, and the laws of the split: seeded, stratified, disjoint, complete."""

import pytest
import torch

from neuroexapt.config import DataConfig
from neuroexapt.data import DataSplits, load_data
from neuroexapt.data.stratify import stratified_cut
from neuroexapt.errors import DataError

NAMES = ("a", "b", "c")


def digits(seed: int = 0, **fields: object) -> DataSplits:
    return load_data(DataConfig(**fields), seed=seed)  # type: ignore[arg-type]


def cut(
    labels: torch.Tensor, size: int, *, least: int = 1, keep: int = 1, seed: int = 0
) -> tuple[list[int], list[int]]:
    generator = torch.Generator().manual_seed(seed)
    taken, rest = stratified_cut(
        labels, size, class_names=NAMES, generator=generator, least=least, keep=keep, what="toy"
    )
    return taken.tolist(), rest.tolist()


def test_the_digits_are_split_by_the_default_fractions() -> None:
    assert digits().describe() == "digits: 1,222 train / 216 validation / 359 test, 1x8x8, 10 classes"


def test_the_digits_are_scaled_by_fifteen_without_loss() -> None:
    images = digits().train.images
    assert int(images.max()) == 240
    assert not (images % 15).any()


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    assert digits(0).fingerprint == digits(0).fingerprint
    assert digits(0).fingerprint != digits(1).fingerprint


def test_every_class_has_its_share_of_every_split() -> None:
    data = digits()
    for part in (data.train, data.validation, data.test):
        shares = torch.bincount(part.labels, minlength=10) / len(part)
        assert float(shares.min()) > 0.08
        assert float(shares.max()) < 0.12


def test_loading_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    digits()
    assert torch.equal(before, torch.get_rng_state())


def test_a_limit_bounds_training_and_validation_together_and_leaves_the_test_split_as_it_is() -> None:
    data, whole = digits(limit=100), digits()
    assert len(data.train) + len(data.validation) == 100
    assert torch.equal(data.test.images, whole.test.images)


def test_a_limit_above_what_there_is_changes_nothing() -> None:
    assert digits(limit=100_000).fingerprint == digits().fingerprint


def test_the_smallest_limit_has_one_image_of_each_class_in_train_and_validation() -> None:
    data = digits(limit=20)
    assert sorted(data.train.labels.tolist()) == sorted(data.validation.labels.tolist()) == list(range(10))


def test_a_limit_too_small_for_the_classes_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.limit = 19, needed at least 20"):
        digits(limit=19)


def test_a_cut_is_a_partition_of_the_rows_in_ascending_order() -> None:
    labels = torch.arange(100) % 3
    taken, rest = cut(labels, 37)
    assert len(taken) == 37
    assert sorted(taken + rest) == list(range(100))
    assert (taken, rest) == (sorted(taken), sorted(rest))


def test_a_cut_takes_the_least_of_a_rare_class_and_keeps_some_of_it() -> None:
    labels = torch.tensor([0] * 90 + [1] * 8 + [2] * 2)
    taken, rest = cut(labels, 10)
    assert len(taken) == 10
    assert set(labels[taken].tolist()) == set(labels[rest].tolist()) == {0, 1, 2}


def test_a_cut_of_everything_but_what_must_stay_takes_what_it_may() -> None:
    taken, rest = cut(torch.arange(9) % 3, 9)
    assert (len(taken), len(rest)) == (6, 3)


def test_a_class_with_too_few_images_is_named() -> None:
    with pytest.raises(DataError, match=r"toy: class 'b': found 1 images, needed at least 2 .*and so for 1 more"):
        cut(torch.tensor([0, 0, 1]), 1)
