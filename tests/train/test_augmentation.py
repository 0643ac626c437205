"""Flips and crops move pixels and change none, and the same generator moves them the same way."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neuroexapt.config import AugmentConfig
from neuroexapt.errors import DataError
from neuroexapt.train.augmentation import augment
from neuroexapt.train.feed import Feed
from train.tiny import config, data

IMAGES = torch.randint(0, 256, (40, 3, 6, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
TURNS = torch.arange(40)


def done(images: Tensor = IMAGES, **settings: object) -> Tensor:
    return augment(AugmentConfig(**settings), images, TURNS, torch.Generator().manual_seed(2))  # type: ignore[arg-type]


def test_nothing_to_do_gives_the_batch_itself() -> None:
    assert done() is IMAGES


def test_an_alternating_flip_mirrors_an_image_every_second_time() -> None:
    found = done(flip="alternating")
    assert torch.equal(found[::2], IMAGES[::2])
    assert torch.equal(found[1::2], IMAGES[1::2].flip(3))


def test_a_random_flip_mirrors_about_half_of_the_images() -> None:
    found = done(flip="random")
    is_same = (found == IMAGES).flatten(1).all(1)
    is_mirrored = (found == IMAGES.flip(3)).flatten(1).all(1)
    assert bool((is_same | is_mirrored).all())
    assert 8 <= int(is_mirrored.sum()) <= 32


def test_a_crop_is_a_window_of_the_image_with_mirrored_edges() -> None:
    found = done(crop_padding=2)
    padded = F.pad(IMAGES.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
    shifts = {
        next((y, x) for y in range(5) for x in range(5) if torch.equal(padded[n, :, y : y + 6, x : x + 7], found[n]))
        for n in range(40)
    }
    assert len(shifts) > 12


def test_the_same_generator_gives_the_same_batch_and_another_one_another() -> None:
    settings = AugmentConfig(flip="random", crop_padding=1)
    one, same, other = (augment(settings, IMAGES, TURNS, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_every_setting_changes_the_batches_of_training_and_of_nothing_else() -> None:
    plain = Feed(data(), config(), torch.device("cpu"))
    for settings in (AugmentConfig(flip="random"), AugmentConfig(flip="alternating"), AugmentConfig(crop_padding=1)):
        feed = Feed(data(), replace(config(), augment=settings), torch.device("cpu"))
        assert not torch.equal(next(feed.training(0))[0], next(plain.training(0))[0])
        assert torch.equal(next(feed.all_of(data().train))[0], next(plain.all_of(data().train))[0])


def test_an_image_that_was_mirrored_is_not_mirrored_the_next_time() -> None:
    feed = Feed(data(), replace(config(), augment=AugmentConfig(flip="alternating")), torch.device("cpu"))
    epochs = [torch.cat([inputs for inputs, _ in feed.training(epoch)]) for epoch in (0, 1, 2)]
    keys = [sorted(image.flatten().tolist() for image in images) for images in epochs]
    assert keys[0] == keys[2] != keys[1]
    assert sorted(image.flip(2).flatten().tolist() for image in epochs[0]) == keys[1]


def test_a_crop_beyond_the_image_is_refused() -> None:
    with pytest.raises(DataError, match="crop_padding: found 8 with images of"):
        Feed(data(), replace(config(), augment=AugmentConfig(crop_padding=8)), torch.device("cpu"))
