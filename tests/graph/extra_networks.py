"""More small networks with a trap each, for the graph alone: what cannot be edited must still be read rightly."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE, TOKENS = (2, 3, 8, 8), (2, 6, 8)


class ChannelShuffle(nn.Module):
    """Grouped convolutions with a shuffle by view and transpose between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 1)
        self.first = nn.Conv2d(12, 12, 3, padding=1, groups=2)
        self.second = nn.Conv2d(12, 6, 1, groups=2)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(torch.relu(self.stem(x))))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(self.second(x).mean((2, 3)))


class SplitShuffle(nn.Module):
    """The ShuffleNet v2 unit: half of the channels pass by, then both halves are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.branches = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()) for _ in range(2))
        self.last = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for branch in self.branches:
            left, right = x.chunk(2, 1)
            x = torch.cat([left, branch(right)], 1)
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(self.last(x).mean((2, 3)))


class PixelShuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(2, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.pixel_shuffle(torch.relu(self.conv(x)), 2))


class SwiGLU(nn.Module):
    """One linear layer whose halves multiply each other."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(8, 12)
        self.outside = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.inside(x).chunk(2, dim=-1)
        return self.outside(F.silu(gate) * value)


class GatedLinearUnit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(8, 12)
        self.outside = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.outside(F.glu(self.inside(x), -1))


class TwoStreams(nn.Module):
    """Three streams are joined, and a slice of the join goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.middle, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1), nn.Conv2d(3, 3, 1)
        self.whole, self.part = nn.Conv2d(12, 6, 1), nn.Conv2d(7, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(torch.cat([self.left(x), self.middle(x), self.right(x)], 1))
        return self.head((self.whole(x) + self.part(x[:, 2:9])).mean((2, 3)))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, 2, 1)
        self.norm = nn.BatchNorm2d(6)
        self.up = nn.ConvTranspose2d(6, 5, 2, 2)
        self.grouped_up = nn.ConvTranspose2d(6, 4, 2, 2, groups=2)
        self.last = nn.Conv2d(13, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.down1(x))
        deep = torch.relu(self.norm(self.down2(first)))
        return self.last(torch.cat([first, self.up(deep), self.grouped_up(deep)], 1))


class GroupNormConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.conv2, self.norm2 = nn.Conv2d(8, 6, 3, padding=1), nn.GroupNorm(1, 6)
        self.conv3, self.norm3 = nn.Conv2d(6, 6, 3, padding=1), nn.InstanceNorm2d(6, affine=True)
        self.conv4, self.norm4 = nn.Conv2d(6, 6, 3, padding=1), nn.InstanceNorm2d(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))
        x = torch.relu(self.norm3(self.conv3(x)))
        return self.head(torch.relu(self.norm4(self.conv4(x))).mean((2, 3)))


class ResNeXtBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.conv1, self.bn1 = nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.conv2, self.bn2 = nn.Conv2d(12, 12, 3, padding=1, groups=3, bias=False), nn.BatchNorm2d(12)
        self.conv3, self.bn3 = nn.Conv2d(12, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        return self.head(torch.relu(x + self.bn3(self.conv3(y))).mean((2, 3)))


class SelfAttention(nn.Module):
    """torch's own multi-head attention, whose forward has many sizes written in it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down = nn.Linear(8, 10), nn.Linear(10, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.attention(x, x, x, need_weights=False)[0]
        return y + self.down(torch.relu(self.up(y)))


class WithLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(8, 6)
        self.lstm = nn.LSTM(6, 7, batch_first=True)
        self.up, self.head = nn.Linear(7, 9), nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(self.enter(x))
        return self.head(torch.relu(self.up(y)))


class WeightNormed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 6, 3, padding=1))
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Conv2d(6, 6, 1))
        self.up = nn.Conv2d(6, 7, 1)
        self.head = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.up(self.spectral(torch.relu(self.conv(x)))))
        return self.head(x.mean((2, 3)))


class LinearSqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 7, 1)
        self.reduce, self.expand = nn.Linear(6, 4), nn.Linear(4, 6)
        self.head = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv1(x))
        scale = torch.sigmoid(self.expand(torch.relu(self.reduce(F.adaptive_avg_pool2d(x, 1).flatten(1)))))
        return self.head(torch.relu(self.conv2(x * scale.view(x.shape[0], -1, 1, 1))).mean((2, 3)))


class PaddedShortcut(nn.Module):
    """The shortcut of ResNet option A: stride by slices, channels padded with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.conv1, self.conv2 = nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = self.conv2(torch.relu(self.conv1(x)))
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.head(torch.relu(y + shortcut).mean((2, 3)))


class SliceAdd(nn.Module):
    """A stream added in place to some of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(3, 7, 1), nn.Conv2d(3, 3, 1)
        self.last = nn.Conv2d(7, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(x)
        y[:, 2:5] += self.narrow(x)
        return self.last(torch.relu(y))


class CopiedBuffer(nn.Module):
    """Activations written into a new tensor, segment by segment."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 3, 1)
        self.last = nn.Conv2d(7, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros(x.shape[0], 7, *x.shape[2:], dtype=x.dtype)
        y[:, :4] = self.left(x)
        y[:, 4:] = self.right(x)
        return self.last(torch.relu(y))


class Fold(nn.Module):
    """im2col, a patch-merging reshape and a roll."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.unfolded = nn.Conv2d(3, 4, 1), nn.Linear(16, 6)
        self.merge, self.head = nn.Linear(16, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        columns = self.unfolded(F.unfold(x, 2, stride=2).transpose(1, 2))
        y = x.permute(0, 2, 3, 1)
        y = torch.roll(torch.cat([y[:, 0::2, 0::2], y[:, 1::2, 0::2], y[:, 0::2, 1::2], y[:, 1::2, 1::2]], -1), 1, 1)
        return self.head(torch.relu(columns.mean(1) + self.merge(y).mean((1, 2))))


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return -gradient


class ReversedGradient(nn.Module):
    """A custom autograd function that returns its own input, and a detour over ``.data``."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.middle, self.head = nn.Linear(8, 6), nn.Linear(6, 7), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = StraightThrough.apply(torch.relu(self.up(x)))
        return self.head(torch.relu(self.middle(y)).data)


class LowRank(nn.Module):
    """A weight that is a product of two parameters, and another that is standardised."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(8, 6)
        self.a, self.b = nn.Parameter(torch.randn(7, 3)), nn.Parameter(torch.randn(3, 6))
        self.weight = nn.Parameter(torch.randn(5, 7))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(F.linear(torch.relu(self.enter(x)), self.a @ self.b))
        weight = (self.weight - self.weight.mean(1, keepdim=True)) / self.weight.std(1, keepdim=True)
        return F.linear(y, weight)


class GroupedQuery(nn.Module):
    """Fewer key and value heads than query heads, by expand and reshape; rotary-like halves."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q = self.q(x).view(n, t, 4, 2).transpose(1, 2)
        k, v = self.kv(x).view(n, t, 2, 2, 2).permute(2, 0, 3, 1, 4).unbind(0)
        k, v = (z[:, :, None].expand(n, 2, 2, t, 2).reshape(n, 4, t, 2) for z in (k, v))
        left, right = q.chunk(2, -1)
        q = q * 0.3 + torch.cat([-right, left], -1)
        y = torch.softmax(q @ k.transpose(-2, -1), -1) @ v
        return self.out(y.transpose(1, 2).flatten(2))


class EinsumAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.randn(8, 2, 3))
        self.k = nn.Parameter(torch.randn(8, 2, 3))
        self.v = nn.Parameter(torch.randn(8, 2, 4))
        self.o = nn.Parameter(torch.randn(2, 4, 8))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btc,chd->bhtd", x, w) for w in (self.q, self.k, self.v))
        weights = torch.softmax(torch.einsum("bhtd,bhsd->bhts", q, k), -1)
        return torch.einsum("bhtd,hdc->btc", torch.einsum("bhts,bhsd->bhtd", weights, v), self.o)


class Language(nn.Module):
    """An embedding whose table is the head's weight too."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.position = nn.Parameter(torch.randn(6, 8))
        self.up, self.down = nn.Linear(8, 10), nn.Linear(10, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.table(x.abs().sum(-1).long() % 11) + self.position
        return self.head(y + self.down(F.gelu(self.up(y))))


class Recursive(nn.Module):
    """One block used three times, with a recurrent cell of plain linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.state, self.read, self.head = (
            nn.Linear(8, 6), nn.Linear(6, 6, bias=False), nn.Linear(8, 6), nn.Linear(6, 5)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.enter(x[:, 0]))
        for t in range(1, 4):
            h = torch.tanh(self.state(h) + self.read(x[:, t]))
        return self.head(h)


class TokenMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.tokens1, self.tokens2 = nn.Linear(6, 7), nn.Linear(7, 6)
        self.gain = nn.Parameter(torch.ones(8) * 0.3)
        self.channels1, self.channels2 = nn.Linear(8, 9), nn.Linear(9, 8)
        self.act = nn.PReLU(9)

    def forward(self, x: Tensor) -> Tensor:
        y = self.tokens2(F.gelu(self.tokens1(self.norm(x).transpose(1, 2)))).transpose(1, 2)
        x = x + self.gain * y
        z = self.act(self.channels1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels2(z)


class OneDimensional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(8, 6, 3, padding="same")
        self.conv2 = nn.Conv1d(6, 7, 3, padding=1, padding_mode="circular")
        self.bn = nn.BatchNorm1d(7, affine=False)
        self.head = nn.Linear(14, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv2(torch.relu(self.conv1(x.transpose(1, 2)))))
        return self.head(torch.cat([y.mean(-1), y.amax(-1)], 1))


class Normalised(nn.Module):
    """Softmax over channels, an L2 norm, an RMS norm and a mean over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(8, 6), nn.Linear(6, 7), nn.Linear(7, 9), nn.Linear(9, 5)
        self.rms = nn.RMSNorm(9)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.softmax(self.a(x), -1)
        x = F.normalize(self.b(x), dim=-1)
        x = self.rms(self.c(x))
        return self.d(x) * x.mean(-1, keepdim=True)


def transformer_layer() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True)


EXTRA: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "channel_shuffle": (ChannelShuffle, IMAGE),
    "split_shuffle": (SplitShuffle, IMAGE),
    "pixel_shuffle": (PixelShuffle, IMAGE),
    "swiglu": (SwiGLU, TOKENS),
    "glu": (GatedLinearUnit, TOKENS),
    "two_streams": (TwoStreams, IMAGE),
    "unet": (UNet, IMAGE),
    "group_norm": (GroupNormConv, IMAGE),
    "resnext": (ResNeXtBlock, IMAGE),
    "self_attention": (SelfAttention, TOKENS),
    "transformer_layer": (transformer_layer, TOKENS),
    "lstm": (WithLSTM, TOKENS),
    "weight_norm": (WeightNormed, IMAGE),
    "linear_se": (LinearSqueezeExcite, IMAGE),
    "padded_shortcut": (PaddedShortcut, IMAGE),
    "slice_add": (SliceAdd, IMAGE),
    "copied_buffer": (CopiedBuffer, IMAGE),
    "fold": (Fold, IMAGE),
    "reversed_gradient": (ReversedGradient, TOKENS),
    "low_rank": (LowRank, TOKENS),
    "grouped_query": (GroupedQuery, TOKENS),
    "einsum_attention": (EinsumAttention, TOKENS),
    "language": (Language, TOKENS),
    "recursive": (Recursive, TOKENS),
    "token_mixer": (TokenMixer, TOKENS),
    "one_dimensional": (OneDimensional, TOKENS),
    "normalised": (Normalised, TOKENS),
}


def build_extra(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    """Returns a network with weights off their 0 and 1, and inputs for it."""
    factory, shape = EXTRA[name]
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = factory()
        with torch.no_grad():
            for key, tensor in [*model.named_parameters(), *model.named_buffers()]:
                if tensor.dim() == 1 and tensor.is_floating_point() and "spectral" not in key:
                    tensor.add_(torch.rand_like(tensor))
        return model.to(dtype), torch.randn(shape).to(dtype)
