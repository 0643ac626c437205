"""Small networks, each with an axis that an operation reads across or that several places share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class RMSNorm(nn.Module):
    """Written by hand, as language models do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6))


class ChannelNorm(nn.Module):
    """Layer norm over the channels of an image, written by hand (ConvNeXt, channels first)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        return self.weight[:, None, None] * ((x - mean) / torch.sqrt(variance + 1e-6)) + self.bias[:, None, None]


class GlobalResponse(nn.Module):
    """x * |x| / mean |x| over channels (Woo et al. 2023, ConvNeXt V2, eq. 1-3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        size = x.norm(p=2, dim=1, keepdim=True)
        return x + self.gamma * (x * (size / (size.mean(-1, keepdim=True) + 1e-6))) + self.beta


class StandardisedConv(nn.Conv2d):
    """Weights with zero mean and unit variance per filter, and a gain (Qiao et al. 2019; Brock et al. 2021)."""

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        weight = self.gain * (self.weight - mean) * torch.rsqrt(variance + 1e-6)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Stream(nn.Module):
    """A residual stream through norms."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 6)
        self.norm1, self.norm2 = norm(6), norm(6)
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.down(F.gelu(self.up(self.norm1(x))))
        return self.head(self.norm2(x))


class TiedHead(nn.Module):
    """The embedding is the head, read through a norm (GPT-2)."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(5, 6)
        self.norm1, self.norm2 = nn.LayerNorm(6), nn.LayerNorm(6)
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x.sum(-1).abs().long().clamp(max=4))
        x = x + self.down(F.relu(self.up(self.norm1(x))))
        return F.linear(self.norm2(x), self.tokens.weight)


class ThreeBiases(nn.Module):
    """A fused projection whose biases are three parameters (BEiT)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3 * outputs, inputs))
        self.q, self.k, self.v = (nn.Parameter(torch.randn(outputs)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, torch.cat((self.q, self.k, self.v)))


class Attention(nn.Module):
    """Self-attention whose head width follows from its weights; ``kind`` says what happens to queries and keys."""

    def __init__(self, kind: str = "fused", heads: int = 2, width: int = 4) -> None:
        super().__init__()
        self.kind, self.heads = kind, heads
        self.norm = nn.LayerNorm(6)
        self.embed = nn.Linear(3, 6)
        self.qkv = ThreeBiases(6, heads * width) if kind == "three biases" else nn.Linear(6, 3 * heads * width)
        self.q_norm, self.k_norm = RMSNorm(width), RMSNorm(width)
        self.positions = nn.Parameter(torch.randn(16, width))
        self.temperature = nn.Parameter(torch.full((heads, 1, 1), 3.0))
        self.project = nn.Linear(heads * width, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        parts = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        y = (self._scores(q, k).softmax(-1) @ v) if self.kind != "fused" else F.scaled_dot_product_attention(q, k, v)
        return self.head(x + self.project(y.transpose(1, 2).flatten(2)))

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        if self.kind == "normed":
            q, k = self.q_norm(q), self.k_norm(k)
        elif self.kind == "relative":
            q, k = self.q_norm(q), self.k_norm(k)
            return q @ k.mT + q @ self.positions.mT
        elif self.kind == "cosine":
            return self.temperature * (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT)
        elif self.kind == "rotary":
            q, k = self._rotated(q), self._rotated(k)
        elif self.kind == "constant scale":
            return (q * 0.5) @ k.mT
        return (q @ k.mT) / math.sqrt(q.shape[-1])

    def _rotated(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * torch.ones(x.shape[-1], dtype=x.dtype) * 0.3
        first, second = x.chunk(2, dim=-1)
        return x * angles.cos() + torch.cat((-second, first), -1) * angles.sin()


class ChannelAttention(nn.Module):
    """Attention between channels: the softmax runs over the head width (El-Nouby et al. 2021, XCiT, eq. 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(3, 3 * 2 * 4)
        self.project = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 4, 1).unbind(0)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
        return self.project((scores.softmax(-1) @ v).permute(0, 3, 1, 2).flatten(2))


class Images(nn.Module):
    """Convolutions on 4 x 4 images made of the input, with something in between that reads across channels."""

    def __init__(self, first: nn.Module, between: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.between, self.second = first, between, second

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, (4, 4)).permute(0, 3, 1, 2)
        return self.second(F.relu(self.between(self.first(x)))).flatten(2).mT


class Last(nn.Module):
    """Runs a module over channels as the last dimension."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(2).mT).mT.unflatten(2, (4, 4))


class Gate(nn.Module):
    """A spatial gate from the mean and the maximum over channels (Woo et al. 2018, CBAM, eq. 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))


def _conv(inputs: int, outputs: int, groups: int = 1) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)


# name -> (how to build it, an axis, whether it can only grow by a factor)
COUPLED: dict[str, tuple[Callable[[], nn.Module], str, bool]] = {
    "residual stream through layer norms": (lambda: Stream(nn.LayerNorm), "embed", True),
    "residual stream through fused RMS norms": (lambda: Stream(nn.RMSNorm), "embed", True),
    "residual stream through hand-written RMS norms": (lambda: Stream(RMSNorm), "embed", True),
    "tied head behind a norm": (TiedHead, "tokens.weight[1]", True),
    "head width with a constant scale": (lambda: Attention("constant scale"), "qkv.weight[0].2", False),
    "head width of fused attention": (lambda: Attention("fused"), "qkv.weight[0].2", False),
    "head width with a scale from the shape": (lambda: Attention("plain"), "qkv.weight[0].2", False),
    "head width whose projection has three biases": (lambda: Attention("three biases"), "qkv.weight[0].2", False),
    "head width behind query and key norms": (lambda: Attention("normed"), "qkv.weight[0].2", True),
    "head width whose queries meet keys and positions": (lambda: Attention("relative"), "qkv.weight[0].2", True),
    "head width behind rotations": (lambda: Attention("rotary"), "qkv.weight[0].2", False),
    "head width of cosine attention": (lambda: Attention("cosine"), "qkv.weight[0].2", True),
    "head width of channel attention": (ChannelAttention, "qkv.weight[0].2", True),
    "channels of weight-standardised convolutions": (
        lambda: Images(StandardisedConv(3, 4, 3), nn.Identity(), StandardisedConv(4, 5, 1)),
        "first",
        True,
    ),
    "channels between weight-normed convolutions": (
        lambda: Images(weight_norm(_conv(3, 4)), nn.Identity(), weight_norm(_conv(4, 5))),
        "first.parametrizations.weight.original0[0]",
        False,
    ),
    "channels of a hand-written norm": (lambda: Images(_conv(3, 4), ChannelNorm(4), _conv(4, 5)), "first", True),
    "channels of a global response norm": (
        lambda: Images(_conv(3, 4), Last(GlobalResponse(4)), _conv(4, 5)),
        "first",
        True,
    ),
    "channels of a spatial gate": (lambda: Images(_conv(3, 4), Gate(), _conv(4, 5)), "first", True),
    "channels inside the groups of a group norm": (
        lambda: Images(_conv(3, 4), nn.GroupNorm(2, 4), _conv(4, 5)),
        "first.weight[0].1",
        True,
    ),
    "channels inside the groups of a grouped convolution": (
        lambda: Images(_conv(3, 4), _conv(4, 6, 2), _conv(6, 5)),
        "first.weight[0].1",
        False,
    ),
}


def build_coupled(name: str) -> nn.Module:
    """Builds a network in float64, all of its constants moved off 0 and 1."""
    torch.manual_seed(0)
    model = COUPLED[name][0]().double()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(0.3 * torch.rand_like(parameter))
    return model


def sequences(seed: int = 0) -> Tensor:
    """Returns ``[2, 16, 3]``."""
    return torch.randn(2, 16, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
