"""Norms, pooling, resampling, patches and shuffles: channels keep their axes, positions do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graph.programs import holding, law, read, spaces
from neuroexapt.graph import trace

GRID = torch.randn(2, 4, 4, 2).double()


@pytest.mark.parametrize(
    ("change", "out"),
    [
        (lambda y: F.avg_pool2d(y, 2), 6),
        (lambda y: F.max_pool2d(y, 2, return_indices=True)[0], 6),
        (lambda y: F.max_unpool2d(*F.max_pool2d(y, 2, return_indices=True), 2), 6),
        (lambda y: F.lp_pool2d(y.abs() + 1, 2, 2), 6),
        (lambda y: F.adaptive_avg_pool2d(y, 2), 6),
        (lambda y: F.adaptive_avg_pool2d(y.to(memory_format=torch.channels_last), 1), 6),
        (lambda y: F.adaptive_max_pool2d(y, 2), 6),
        (lambda y: F.avg_pool1d(y.flatten(2), 2)[..., None], 6),
        (lambda y: F.max_pool1d(y.flatten(2), 2)[..., None], 6),
        (lambda y: F.adaptive_avg_pool1d(y.flatten(2), 2)[..., None], 6),
        (lambda y: F.avg_pool3d(y[:, :, None], (1, 2, 2))[:, :, 0], 6),
        (lambda y: F.adaptive_avg_pool3d(y[:, :, None], (1, 2, 2))[:, :, 0], 6),
        (lambda y: F.avg_pool2d(y[0], 2)[None], 6),
        (lambda y: F.interpolate(y, scale_factor=2), 6),
        (lambda y: F.interpolate(y, size=5, mode="bilinear"), 6),
        (lambda y: F.interpolate(y, size=5, mode="bilinear", antialias=True), 6),
        (lambda y: F.interpolate(y, size=5, mode="bicubic"), 6),
        (lambda y: F.interpolate(y, size=5, mode="nearest-exact"), 6),
        (lambda y: F.interpolate(y.flatten(2), size=5, mode="linear")[..., None], 6),
        (lambda y: F.interpolate(y[:, :, None], scale_factor=2, mode="trilinear")[:, :, 0], 6),
        (lambda y: F.pad(y, (1, 1, 1, 1), mode="reflect"), 6),
        (lambda y: F.pad(y, (1, 1, 1, 1), mode="replicate"), 6),
        (lambda y: F.pad(y, (1, 1, 1, 1), mode="circular"), 6),
        (lambda y: F.pad(y, (1, 1, 1, 1)), 6),
        (lambda y: F.grid_sample(y, GRID, align_corners=False), 6),
        (lambda y: F.grid_sample(y, F.affine_grid(GRID[:, :2, :3, 0], (2, 6, 4, 4), False), align_corners=False), 6),
        (lambda y: F.fold(F.unfold(y, 2, stride=2), 4, 2, stride=2), 6),
        (lambda y: F.unfold(y, 2, stride=2).unflatten(-1, (2, 2)), 24),
        (lambda y: F.pixel_unshuffle(y, 2), 24),
        (lambda y: F.pixel_shuffle(F.pixel_unshuffle(y, 2), 2), 6),
        (lambda y: F.channel_shuffle(y, 2), 6),
        (lambda y: torch.roll(y, (1, 1), (2, 3)), 6),
        (lambda y: y.flip(3), 6),
        (lambda y: torch.rot90(y, 1, (2, 3)), 6),
        (lambda y: torch.fft.ifft2(torch.fft.fft2(y)).real, 6),
        (lambda y: y.to(memory_format=torch.channels_last).mean((2, 3), keepdim=True), 6),
        (lambda y: y.cumsum(2), 6),
        (lambda y: y.sort(3).values + y.argmax(3, keepdim=True), 6),
        (lambda y: F.instance_norm(y), 6),
        (lambda y: F.group_norm(y, 3), 6),
        (lambda y: F.rms_norm(y.movedim(1, -1), (6,)).movedim(-1, 1), 6),
        (lambda y: (y - y.mean(1, keepdim=True)) / (y.var(1, keepdim=True) + 1e-5).sqrt(), 6),
    ],
)
def test_channels_pass_through(change: Callable[[Tensor], Tensor], out: int) -> None:
    graph = read(lambda x, a, b: F.conv2d(change(F.conv2d(x, a)), b), (6, 3, 1, 1), (5, out, 1, 1), x=(2, 3, 4, 4))
    assert not graph.unknown_operators
    assert any(not space.pin_reason for space in spaces(graph, "p0", 0))
    assert law(graph) >= 1


def test_a_response_norm_over_neighbouring_channels_pins_them() -> None:
    graph = read(lambda x, a, b: F.conv2d(F.local_response_norm(F.conv2d(x, a), 3), b), (6, 3, 1, 1), (5, 6, 1, 1))
    assert holding(graph, "p0", 0).pin_reason


def test_a_pixel_shuffle_keeps_whole_channels_free() -> None:
    graph = read(lambda x, a, b: F.conv2d(F.pixel_shuffle(F.conv2d(x, a), 2), b), (8, 3, 1, 1), (5, 2, 1, 1))
    channels, pixels = spaces(graph, "p0", 0)
    assert channels is spaces(graph, "p1", 1)[0]
    assert "pixels inside a channel" in (pixels.pin_reason or "")
    assert holding(graph, "p0", 0).can_widen


class Normed(nn.Module):
    """An instance norm with statistics and gains of its own, behind a weight-normed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 6, 3))
        self.norm = nn.InstanceNorm2d(6, affine=True, track_running_stats=True)
        self.last = nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.norm(self.conv(x))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_instance_and_weight_norms_keep_channels_apart(dtype: torch.dtype) -> None:
    graph = trace(Normed().to(dtype), torch.randn(2, 3, 6, 6).to(dtype))
    assert not graph.unknown_operators
    group = graph.group("conv.parametrizations.weight.original0[0]")
    assert {m.path for m in group.members} >= {"norm.weight", "norm.bias", "norm.running_mean", "last.weight"}
    assert not group.pin_reason
    if dtype is torch.float64:
        assert law(graph) == 1
