"""Folders of images, and sources that are none."""

import logging
from pathlib import Path

import pytest
from image_builders import noisy_jpeg, pixels, write_class_folders

from neuroexapt.config import DataConfig
from neuroexapt.data import DataSplits, load_data
from neuroexapt.errors import DataError


def load(source: Path | str, **fields: object) -> DataSplits:
    return load_data(DataConfig(source=str(source), **fields), seed=0)  # type: ignore[arg-type]


def test_each_sub_folder_is_a_class(tmp_path: Path) -> None:
    data = load(write_class_folders(tmp_path / "pets", 9))
    assert data.describe() == "pets: 12 train / 2 validation / 4 test, 3x4x6, 2 classes"
    assert data.class_names == ("cat", "dog")
    assert data.train.labels.tolist() == [red // 10 for red in data.train.images[:, 0, 0, 0].tolist()]


def test_folders_of_splits_above_the_classes_are_those_splits(tmp_path: Path) -> None:
    for split, number in (("train", 8), ("val", 2), ("test", 3)):
        write_class_folders(tmp_path / split, number)
    data = load(tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (16, 4, 6)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert load(write_class_folders(tmp_path, 5, ("plane", "train"))).class_names == ("plane", "train")


@pytest.mark.parametrize("form", ["png", "bmp", "gif", "webp", "jpg", "jpeg"])
def test_every_common_form_is_read(tmp_path: Path, form: str) -> None:
    root = write_class_folders(tmp_path, 4)
    pixels(3).save(root / "cat" / f"extra.{form}")
    data = load(root)
    assert len(data.train) + len(data.validation) + len(data.test) == 9
    assert data.in_channels == 3


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, 4)
    pixels(3, mode="P").save(root / "cat" / "extra.png", transparency=bytes([0, 128, 255, 3]))
    assert load(root).in_channels == 3


def test_files_that_are_no_images_are_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_class_folders(tmp_path, 4)
    (root / "cat" / "notes.txt").write_text("hello")
    (root / "cat" / ".hidden").write_text("hello")
    with caplog.at_level(logging.WARNING):
        load(root)
    assert "skipped 1 files that are no images, such as notes.txt" in caplog.text


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, 4)
    (root / "cat" / "0.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"0\.png: found no known format, needed an image"):
        load(root)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(4):
            (tmp_path / name / f"{number}.jpg").write_bytes(noisy_jpeg())
    (tmp_path / "dog" / "2.jpg").write_bytes(noisy_jpeg()[:-300])
    with pytest.raises(DataError, match=r"2\.jpg: found a damaged or truncated image.*truncated"):
        load(tmp_path)


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, 4)
    pixels(1, size=(5, 5)).save(root / "dog" / "odd.png")
    with pytest.raises(DataError, match=r"found an image . pixels wide and . high, needed"):
        load(root)


def test_a_class_without_images_is_refused(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, 4)
    (root / "emu").mkdir()
    with pytest.raises(DataError, match=r"emu: found no image, needed at least one file ending in \.bmp"):
        load(root)


def test_a_class_that_train_does_not_have_is_refused(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "train", 4)
    write_class_folders(tmp_path / "test", 4, ("cat", "emu"))
    with pytest.raises(DataError, match="emu: found a class that train does not have, needed: cat, dog"):
        load(tmp_path)


def test_a_class_beside_the_splits_is_refused(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "train", 4)
    write_class_folders(tmp_path, 4)
    with pytest.raises(DataError, match="found cat/ beside train/"):
        load(tmp_path)


@pytest.mark.parametrize(("files", "found"), [((), "an empty folder"), (("a.txt", "b.png"), "a.txt, b.png")])
def test_a_folder_with_nothing_usable_says_what_it_holds(tmp_path: Path, files: tuple[str, ...], found: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=f"found {found}, needed Parquet files, or one sub-folder"):
        load(tmp_path)


def test_one_class_folder_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found 1 class \(cat\), needed at least 2"):
        load(write_class_folders(tmp_path, 4, ("cat",)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digts", r"found 'digts', which is no named data set \(digits\).*Did you mean 'digits'\?"),
        ("", "found '', which is no named data set"),
        ("nowhere/at/all", "The folder 'nowhere/at' does not exist either"),
        ("a\0b", "needed a name or a path"),
        ("x" * 5000, "cannot be read"),
    ],
)
def test_a_source_that_does_not_exist_is_refused_with_advice(source: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(source)


def test_a_path_with_a_slip_is_corrected(tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()
    with pytest.raises(DataError, match=r"Did you mean '.*cifar10'"):
        load(tmp_path / "cifar")
