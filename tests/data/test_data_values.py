"""LabelledImages and DataSplits: what they hold, compute and refuse."""

import pytest
import torch

from neuroexapt.data import DataSplits, LabelledImages, make_splits
from neuroexapt.data.statistics import STD_FLOOR, channel_statistics
from neuroexapt.errors import DataError

EXACT_FLOAT32 = 1e-6  # statistics are computed in float64 and rounded once


def part(num_images: int = 4, channels: int = 1, size: int = 3, seed: int = 0) -> LabelledImages:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (num_images, channels, size, size), generator=generator, dtype=torch.uint8)
    return LabelledImages(images=images, labels=torch.arange(num_images) % 2)


def splits(**changes: object) -> DataSplits:
    parts = {"train": part(6, seed=1), "validation": part(2, seed=2), "test": part(3, seed=3), **changes}
    return make_splits(name="tiny", class_names=("no", "yes"), **parts)  # type: ignore[arg-type]


def test_images_are_kept_as_bytes_and_say_how_many() -> None:
    images = part(4, channels=3, size=5)
    assert len(images) == 4
    assert images.nbytes == 4 * 3 * 5 * 5 + 4 * 8


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 1, 3, 3), torch.zeros(2, dtype=torch.int64), "needed contiguous torch.uint8"),
        (torch.zeros(2, 3, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "N, C, H, W"),
        (torch.zeros(2, 1, 3, 4, dtype=torch.uint8).mT, torch.zeros(2, dtype=torch.int64), "not contiguous"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "one label for each image"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(2), "needed torch.int64"),
        (torch.zeros(0, 1, 3, 3, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), "at least one image"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.tensor([0, -1]), "row 1: found -1"),
    ],
)
def test_tensors_that_are_no_labelled_images_are_refused(
    images: torch.Tensor, labels: torch.Tensor, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        LabelledImages(images=images, labels=labels)


def test_a_label_without_a_class_name_is_refused() -> None:
    wrong = LabelledImages(images=part(2).images, labels=torch.tensor([0, 2]))
    with pytest.raises(DataError, match="validation: found label 2, needed 0 to 1"):
        splits(validation=wrong)


def test_splits_of_different_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"test: found images of \[1, 4, 4\], needed \[1, 3, 3\]"):
        splits(test=part(2, size=4))


def test_mean_and_deviation_are_those_of_the_training_split_alone() -> None:
    data = splits()
    expected = data.train.images.double() / 255
    torch.testing.assert_close(data.mean.double(), expected.mean(dim=(0, 2, 3)), rtol=0, atol=EXACT_FLOAT32)
    deviation = expected.std(dim=(0, 2, 3), unbiased=False)
    torch.testing.assert_close(data.std.double(), deviation, rtol=0, atol=EXACT_FLOAT32)
    assert torch.equal(data.mean, splits(test=part(3, seed=9)).mean)
    assert (data.mean.dtype, data.std.dtype) == (torch.float32, torch.float32)


def test_statistics_do_not_depend_on_how_the_images_are_cut_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    images = part(50, channels=3).images
    whole = channel_statistics(images)
    monkeypatch.setattr("neuroexapt.data.statistics._CHUNK_BYTES", 1)
    pieces = channel_statistics(images)
    assert torch.equal(whole[0], pieces[0])
    assert torch.equal(whole[1], pieces[1])


def test_the_deviation_of_a_constant_channel_is_never_zero() -> None:
    _, std = channel_statistics(torch.full((3, 2, 4, 4), 200, dtype=torch.uint8))
    assert std.tolist() == pytest.approx([STD_FLOOR] * 2)


def test_normalised_training_images_have_mean_zero_and_deviation_one() -> None:
    data = splits()
    x = data.normalise(data.train.images)
    assert x.dtype == torch.float32
    assert x.shape == data.train.images.shape
    assert float(x.mean()) == pytest.approx(0, abs=1e-5)
    assert float(x.std(unbiased=False)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("images", [torch.zeros(2, 1, 3, 3), torch.zeros(2, 3, 3, 3, dtype=torch.uint8)])
def test_normalise_refuses_what_is_not_bytes_of_these_channels(images: torch.Tensor) -> None:
    with pytest.raises(DataError, match=r"normalise: found .* needed torch\.uint8"):
        splits().normalise(images)


def test_the_fingerprint_changes_with_any_pixel_label_or_order() -> None:
    base = splits()
    assert splits().fingerprint == base.fingerprint
    pixel = part(3, seed=3).images.clone()
    pixel[2, 0, 2, 2] ^= 1
    labels = part(3, seed=3).labels.clone()
    labels[0] = 1
    changed = [
        splits(test=LabelledImages(images=pixel, labels=part(3).labels)),
        splits(test=LabelledImages(images=part(3, seed=3).images, labels=labels)),
        splits(train=part(2, seed=2), validation=part(6, seed=1)),
    ]
    assert len({base.fingerprint, *(data.fingerprint for data in changed)}) == 4


def test_the_description_is_one_line() -> None:
    assert splits().describe() == "tiny: 6 train / 2 validation / 3 test, 1x3x3, 2 classes"


def test_splits_say_what_a_network_needs_to_know() -> None:
    data = splits()
    assert (data.in_channels, data.image_size, data.num_classes) == (1, (3, 3), 2)
