"""Batches, evaluation and the learning rate: pure functions of the configuration and the position."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neuroexapt.config import AugmentConfig, TrainConfig
from neuroexapt.data import LabelledImages, make_splits
from neuroexapt.errors import DataError
from neuroexapt.train.batches import batch_slices, batches
from neuroexapt.train.evaluate import evaluate
from neuroexapt.train.feed import Feed
from neuroexapt.train.optimization import build_optimizer, learning_rate_at
from neuroexapt.train.order import epoch_order
from train.tiny import config, data, images, network

CPU = torch.device("cpu")


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 16, 17])
@pytest.mark.parametrize("size", [1, 2, 3, 8, 20])
def test_every_sample_comes_once_and_no_batch_but_the_only_one_has_a_single_sample(count: int, size: int) -> None:
    split = images(count, 0)
    found = list(batches(split.images, torch.arange(count), size, torch.Tensor.float, CPU))
    assert torch.cat([labels for _, labels in found]).tolist() == list(range(count))
    assert len(found) == len(batch_slices(count, size))
    if size > 1 and count > 1:
        assert min(len(labels) for _, labels in found) > 1
    for pixels, labels in found:
        assert torch.equal(pixels, split.images[labels].float())


def test_the_same_seed_and_epoch_give_the_same_order_and_another_epoch_another() -> None:
    feeds = [Feed(data(), config(), CPU) for _ in range(2)]
    first, again, other = (
        [y.tolist() for _, y in feed.training(e)] for feed, e in zip([*feeds, feeds[0]], (0, 0, 1), strict=True)
    )
    assert first == again != other
    assert feeds[0].num_steps == len(first)


AUGMENT = AugmentConfig(flip="random", crop_padding=2)


@pytest.mark.parametrize("start", [0, 1, 4, 5, 6])
def test_an_epoch_that_is_entered_at_a_later_step_goes_on_as_the_whole_one(start: int) -> None:
    feed = Feed(data(), replace(config(), augment=AUGMENT), CPU)
    whole, rest = (list(feed.training(2, start=s)) for s in (0, start))
    assert len(whole) == feed.num_steps == 5
    assert len(rest) == max(5 - start, 0)
    for (images_a, labels_a), (images_b, labels_b) in zip(whole[start:], rest, strict=True):
        assert torch.equal(images_a, images_b)
        assert torch.equal(labels_a, labels_b)


def test_entering_late_prepares_no_earlier_batch() -> None:
    splits, sizes = data(), []
    feed = Feed(splits, config(), CPU)
    with patch.object(type(splits), "normalise", lambda self, x: sizes.append(len(x)) or x.float()):
        list(feed.training(0, start=3))
    assert sizes == [24, 24]


def test_short_epochs_are_fresh_subsets_until_all_samples_were_seen() -> None:
    orders = [epoch_order(5, epoch, 100, 30) for epoch in range(10)]
    rows, visits = (torch.cat(parts) for parts in zip(*orders, strict=True))
    for turn in range(3):
        assert sorted(rows[100 * turn : 100 * turn + 100].tolist()) == list(range(100))
        assert visits[100 * turn : 100 * turn + 100].unique().tolist() == [turn]
    assert not torch.equal(rows[:100], rows[100:200])
    assert torch.equal(epoch_order(5, 7, 100, 30)[0], orders[7][0])


def test_an_epoch_has_epoch_samples_images_and_at_most_all() -> None:
    for asked, got in ((50, 50), (500, 120), (None, 120)):
        feed = Feed(data(), config({"epoch_samples": asked}), CPU)
        sizes = [len(labels) for _, labels in feed.training(0)]
        assert (sum(sizes), len(sizes)) == (got, feed.num_steps)


def test_images_lie_channels_last_where_asked() -> None:
    splits = make_splits(
        name="colours",
        class_names=("a", "b", "c", "d"),
        **{
            part: LabelledImages(images=images(40, 1).images.repeat(1, 3, 1, 1), labels=images(40, 1).labels)
            for part in ("train", "validation", "test")
        },
    )
    plain, last = (Feed(splits, config({"channels_last": flag}), CPU) for flag in (False, True))
    for one, other in ((plain.probe, last.probe), (next(plain.training(0))[0], next(last.training(0))[0])):
        assert one.is_contiguous()
        assert other.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(one, other)


@pytest.mark.parametrize("count", [4, 5, 9, 15, 16, 17, 31, 200])
def test_evidence_comes_in_equal_batches_of_at_least_two(count: int) -> None:
    feed = Feed(data(count), config(morphogenesis={"evidence_samples": 64}), CPU)
    assert feed.evidence is not None
    sizes = [len(labels) for _, labels in feed.evidence(0)]
    assert 2 <= len(sizes) <= 8
    assert min(sizes) == max(sizes) >= 2
    assert sum(sizes) <= min(count, 64)


def test_too_little_data_gives_no_evidence() -> None:
    assert Feed(data(3), config(), CPU).evidence is None


def test_an_empty_split_is_refused_by_name() -> None:
    splits = data()
    empty = LabelledImages.__new__(LabelledImages)
    object.__setattr__(empty, "images", splits.test.images[:0])
    object.__setattr__(empty, "labels", splits.test.labels[:0])
    object.__setattr__(splits, "test", empty)
    with pytest.raises(DataError, match=r"quarters: test: found no images"):
        Feed(splits, config(), CPU)


def test_loss_and_accuracy_are_means_over_samples_whatever_the_batches() -> None:
    model = network()
    split = data().validation
    inputs = data().normalise(split.images)
    whole = evaluate(model, [(inputs, split.labels)])
    parts = evaluate(model, [(inputs[:1], split.labels[:1]), (inputs[1:], split.labels[1:])])
    model.eval()
    with torch.no_grad():
        logits = model(inputs)
    assert whole[0] == pytest.approx(float(F.cross_entropy(logits, split.labels)), rel=1e-6)
    assert whole[1] == pytest.approx(float((logits.argmax(1) == split.labels).float().mean()))
    assert parts == pytest.approx(whole, rel=1e-6)


def test_evaluation_leaves_modes_buffers_and_generator_alone() -> None:
    model = network().train()
    model.drop.eval()
    state, before = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    split = data().validation
    evaluate(model, [(data().normalise(split.images), split.labels)])
    assert model.training
    assert model.norm.training
    assert not model.drop.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_rate_warms_up_linearly_and_falls_along_a_cosine_to_one_percent() -> None:
    settings = TrainConfig(epochs=11, warmup_epochs=1.0, learning_rate=0.5)
    rates = [learning_rate_at(settings, epoch) for epoch in (0.0, 0.25, 0.5, 1.0, 3.5, 6.0, 8.5, 11.0, 12.0)]
    assert rates[:4] == pytest.approx([0.005, 0.125, 0.25, 0.5])
    assert rates[3:8] == sorted(rates[3:8], reverse=True)
    assert rates[5] == pytest.approx(0.5 * (0.01 + 0.99 * 0.5))
    assert rates[7:] == pytest.approx([0.005, 0.005])


def test_a_constant_schedule_stays_at_the_peak_after_warm_up() -> None:
    settings = TrainConfig(epochs=4, warmup_epochs=2.0, schedule="constant", learning_rate=0.5)
    assert [learning_rate_at(settings, epoch) for epoch in (1.0, 2.0, 4.0)] == pytest.approx([0.25, 0.5, 0.5])


def test_a_warm_up_as_long_as_the_run_or_none_at_all_divides_by_nothing() -> None:
    assert learning_rate_at(TrainConfig(epochs=2, warmup_epochs=2.0, learning_rate=1.0), 2.0) == pytest.approx(1.0)
    assert learning_rate_at(TrainConfig(epochs=2, warmup_epochs=0.0, learning_rate=1.0), 0.0) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_matrices_decay_and_vectors_do_not(kind: str) -> None:
    model = network()
    optimizer = build_optimizer(TrainConfig(optimizer=kind, weight_decay=0.3, momentum=0.7), model)  # type: ignore[arg-type]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert [{p.dim() > 1 for p in group["params"]} for group in optimizer.param_groups] == [{True}, {False}]
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert optimizer.param_groups[0].get("momentum", 0.7) == 0.7


def test_a_network_without_vectors_can_be_optimised() -> None:
    assert len(build_optimizer(TrainConfig(), nn.Linear(3, 3, bias=False)).param_groups) == 2
