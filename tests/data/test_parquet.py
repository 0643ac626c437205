"""Parquet files and folders of them: what is found, what is refused, and by which row."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from image_builders import encode, noisy_jpeg, pixels, rows, write_parquet

from neuroexapt.config import DataConfig
from neuroexapt.data import DataSplits, load_data
from neuroexapt.errors import DataError


def load(source: Path, **fields: object) -> DataSplits:
    return load_data(DataConfig(source=str(source), **fields), seed=0)  # type: ignore[arg-type]


def reds(images: torch.Tensor) -> list[int]:
    """The number that ``rows`` wrote into each image."""
    return images[:, 0, 0, 0].tolist()


def test_one_file_is_split_by_fractions_and_every_image_keeps_its_label(tmp_path: Path) -> None:
    data = load(write_parquet(tmp_path / "all.parquet", *rows(40), row_group_size=7))
    assert data.describe() == "all: 27 train / 5 validation / 8 test, 3x4x6, 2 classes"
    numbers = [reds(part.images) for part in (data.train, data.validation, data.test)]
    assert sorted(itertools.chain(*numbers)) == list(range(40))
    for part in (data.train, data.validation, data.test):
        assert part.labels.tolist() == [number % 2 for number in reds(part.images)]


def test_files_named_after_splits_are_those_splits(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-00000-of-00002.parquet", *rows(10))
    write_parquet(tmp_path / "train-00001-of-00002.parquet", *rows(10, first=10))
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", *rows(4, first=20))
    write_parquet(tmp_path / "test-00000-of-00001.parquet", *rows(6, first=24))
    data = load(tmp_path)
    assert reds(data.train.images) == list(range(20))
    assert reds(data.validation.images) == list(range(20, 24))
    assert reds(data.test.images) == list(range(24, 30))


def test_validation_comes_out_of_train_where_only_a_test_file_is_given(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train.parquet", *rows(20))
    write_parquet(tmp_path / "data" / "test.parquet", *rows(6, first=20))
    data = load(tmp_path, validation_fraction=0.25)
    assert (len(data.train), len(data.validation), len(data.test)) == (15, 5, 6)


def test_folders_named_after_splits_are_those_splits(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train" / "0000.parquet", *rows(20))
    write_parquet(tmp_path / "test" / "0000.parquet", *rows(6, first=20))
    assert reds(load(tmp_path).test.images) == list(range(20, 26))


def test_a_limit_is_shared_by_train_and_validation_files_in_their_proportion(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", *rows(30))
    write_parquet(tmp_path / "val.parquet", *rows(10))
    write_parquet(tmp_path / "test.parquet", *rows(6))
    data = load(tmp_path, limit=20)
    assert (len(data.train), len(data.validation), len(data.test)) == (15, 5, 6)


def test_only_wanted_rows_are_decoded(tmp_path: Path) -> None:
    images, labels = rows(40)
    file = write_parquet(tmp_path / "all.parquet", images, labels)
    kept = load(file, limit=10)
    used = {number for part in (kept.train, kept.validation, kept.test) for number in reds(part.images)}
    for number in set(range(40)) - used:
        images[number] = b"no image at all"
    again = load(write_parquet(file, images, labels), limit=10)
    assert again.fingerprint == kept.fingerprint


def test_plain_binary_columns_and_text_labels_are_read(tmp_path: Path) -> None:
    images, labels = rows(20)
    words = pa.array([("pear", "apple")[label] for label in labels]).dictionary_encode()
    data = load(write_parquet(tmp_path / "a.parquet", images, words, image="picture", label="target", as_struct=False))
    assert data.class_names == ("apple", "pear")
    assert data.train.labels.tolist() == [1 - number % 2 for number in reds(data.train.images)]


def test_class_names_come_from_the_schema_where_it_declares_them(tmp_path: Path) -> None:
    data = load(write_parquet(tmp_path / "a.parquet", *rows(20), names=["cat", "dog"]))
    assert data.class_names == ("cat", "dog")


def test_undeclared_integers_are_numbered_in_ascending_order(tmp_path: Path) -> None:
    images, labels = rows(20)
    data = load(write_parquet(tmp_path / "a.parquet", images, [10 * label + 5 for label in labels]))
    assert data.class_names == ("5", "15")
    assert sorted(set(data.train.labels.tolist())) == [0, 1]


def test_grey_images_stay_one_channel(tmp_path: Path) -> None:
    images = [encode(pixels(number, mode="L")) for number in range(20)]
    data = load(write_parquet(tmp_path / "a.parquet", images, [0, 1] * 10))
    assert data.in_channels == 1
    assert data.image_size == (4, 6)


def test_one_colour_image_makes_all_of_them_colour(tmp_path: Path) -> None:
    images = [encode(pixels(number, mode="L")) for number in range(20)]
    images[7] = encode(pixels(7))
    data = load(write_parquet(tmp_path / "a.parquet", images, [0, 1] * 10))
    assert data.in_channels == 3
    parts = torch.cat([part.images for part in (data.train, data.validation, data.test)])
    grey = parts[parts[:, 0, 0, 0] != 7]
    assert len(grey) == 19
    assert torch.equal(grey, grey[:, :1].expand(-1, 3, -1, -1))


def bad_image(content: bytes | None) -> tuple[list[bytes | None], list[int]]:
    images: list[bytes | None] = [encode(pixels(number, size=(32, 32))) for number in range(20)]
    images[13] = content
    return images, [0, 1] * 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (noisy_jpeg()[:-200], "row 13: found a damaged or truncated image.*Pillow says: .*truncated"),
        (encode(pixels(1, size=(32, 32)))[:-30], "row 13: found a damaged or truncated image"),
        (b"<html>not found</html>", "row 13: found 22 bytes that begin b'<html>no', needed an image"),
        (b"", "row 13: found zero bytes"),
        (None, r"row 13: found no bytes \(null\)"),
        (encode(pixels(1, size=(32, 31))), "row 13: found an image 32 pixels wide and 31 high, needed 32 by 32"),
    ],
)
def test_an_unusable_image_is_named_by_file_and_row(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = write_parquet(tmp_path / "a.parquet", *bad_image(content), row_group_size=4)
    with pytest.raises(DataError, match=f"a.parquet: {message}"):
        load(file)


def test_sixteen_bit_images_are_refused_and_not_clipped(tmp_path: Path) -> None:
    from PIL import Image

    deep = Image.fromarray(np.full((32, 32), 40_000, dtype=np.uint16))
    with pytest.raises(DataError, match="row 13: found pixels of mode I;16, needed 8 bits"):
        load(write_parquet(tmp_path / "a.parquet", *bad_image(encode(deep))))


@pytest.mark.parametrize("limit_pixels", [600, 1000])
def test_a_decompression_bomb_is_an_error_both_where_pillow_warns_and_where_it_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_pixels: int
) -> None:
    file = write_parquet(tmp_path / "a.parquet", *bad_image(encode(pixels(1, size=(40, 31)))))
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", limit_pixels)
    with pytest.raises(DataError, match=r"row .*decompression bombs"):
        load(file)


def test_images_that_do_not_fit_into_memory_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory:
        available = 100

    monkeypatch.setattr("neuroexapt.data.decode.psutil.virtual_memory", Memory)
    with pytest.raises(DataError, match=r"GB of free memory. Set data\.limit"):
        load(write_parquet(tmp_path / "a.parquet", *rows(20)))


@pytest.mark.parametrize(
    ("label", "names", "message"),
    [
        (None, None, r"row 13: found no label \(null\)"),
        (-1, None, "row 13: found label -1, needed 0 or more"),
        (2, ["cat", "dog"], "row 13: found label 2, needed 0 to 1, as 2 class names are declared"),
    ],
)
def test_an_unusable_label_is_named_by_file_and_row(
    tmp_path: Path, label: int | None, names: list[str] | None, message: str
) -> None:
    images, labels = rows(20)
    file = write_parquet(tmp_path / "a.parquet", images, [*labels[:13], label, *labels[14:]], names=names)
    with pytest.raises(DataError, match=f"a.parquet: {message}"):
        load(file)


def test_a_missing_label_column_lists_the_columns(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", *rows(20), label="kind")
    with pytest.raises(DataError, match=r"no label column.*columns are: img \(struct<.*kind \(int64\)"):
        load(file)


def test_a_missing_image_column_lists_the_columns(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"text": ["a", "b"], "label": [0, 1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"clearly the image.*columns are: text \(string\), label \(int64\)"):
        load(tmp_path)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DataError, match=r"a.parquet: found a file that cannot be read as Parquet.*pyarrow says"):
        load(tmp_path)


def test_a_parquet_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", *rows(20))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"a\.parquet: found a file that cannot be read as Parquet"):
        load(file)


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found 1 class \(0\), needed at least 2"):
        load(write_parquet(tmp_path / "a.parquet", *rows(20, num_classes=1)))


def test_a_class_too_small_for_all_three_splits_is_named(tmp_path: Path) -> None:
    images, _ = rows(20)
    with pytest.raises(DataError, match="class 'dog': found 2 images, needed at least 3"):
        load(write_parquet(tmp_path / "a.parquet", images, [1, 1] + [0] * 18, names=["cat", "dog"]))


def test_a_file_beside_the_splits_that_names_none_is_refused(tmp_path: Path) -> None:
    for name in ("train", "extra"):
        write_parquet(tmp_path / f"{name}.parquet", *rows(20))
    with pytest.raises(DataError, match=r"extra\.parquet: found a name that says no split"):
        load(tmp_path)


def test_files_with_different_columns_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", *rows(20))
    write_parquet(tmp_path / "test.parquet", *rows(20), image="image")
    with pytest.raises(DataError, match=r"train.parquet: found image 'img.bytes'.*needed 'image.bytes'"):
        load(tmp_path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no rows"):
        load(write_parquet(tmp_path / "a.parquet", [], pa.array([], pa.int64())))


@pytest.mark.parametrize(("module", "word"), [("pyarrow", "pyarrow"), ("PIL", "Pillow")])
def test_a_missing_optional_package_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, word: str
) -> None:
    file = write_parquet(tmp_path / "a.parquet", *rows(20))
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(DataError, match=rf"found no {word}.*pip install 'neuroexapt\[data\]'"):
        load(file)
