"""B4: a character GPT on tiny Shakespeare; heads and the hidden width of the MLPs grow, the residual stream stays.

Two pre-norm blocks of width 64 on windows of 64 characters: 2 heads of 8 and 64 hidden units to 8 heads and 256.
The edits are exact, so they are made untried.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import neuroexapt as nx
from growth.bars import Bar
from growth.suites.shakespeare import windows
from growth.task import Data, Score, Sizes, Task

_CHARACTERS = 65
_LENGTH = 64
_WIDTH = 64
_HEAD_WIDTH = 8
_LAYERS = 2


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        inner = num_heads * _HEAD_WIDTH
        self.query, self.key, self.value = (nn.Linear(_WIDTH, inner, bias=False) for _ in range(3))
        self.out = nn.Linear(inner, _WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, length, width] -> the same."""
        query, key, value = (
            layer(x).unflatten(-1, (-1, _HEAD_WIDTH)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        heads = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(heads.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and MLP, each behind a norm and beside a shortcut."""

    def __init__(self, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)
        self.attention = Attention(num_heads)
        self.up, self.down = nn.Linear(_WIDTH, hidden), nn.Linear(hidden, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """[n, length, width] -> the same."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def _places(length: int) -> Tensor:
    """Sines and cosines of the position, [length, width] (Vaswani et al. 2017, section 3.5).

    Nothing to learn, and a size written down: the residual stream, which the norms read across, is not offered to
    growth.
    """
    angle = torch.arange(length)[:, None] * 1e4 ** (-torch.arange(0, _WIDTH, 2) / _WIDTH)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class CharGPT(nn.Module):
    """Embedding of characters, blocks, norm, head."""

    def __init__(self, num_heads: list[int], hidden: list[int]) -> None:
        super().__init__()
        self.characters = nn.Embedding(_CHARACTERS, _WIDTH)
        self.blocks = nn.Sequential(*map(Block, num_heads, hidden))
        self.norm, self.head = nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, _CHARACTERS)

    def forward(self, codes: Tensor) -> Tensor:
        """[n, length] -> logits [n, length, characters]."""
        x = self.characters(codes) + _places(codes.shape[1])
        return self.head(self.norm(self.blocks(x)))


def _load() -> Data | str:
    return windows(_LENGTH, 32)


def _axes(num_heads: int, hidden: int) -> dict[str, int]:
    found = {}
    for i in range(_LAYERS):
        found |= {f"blocks.{i}.attention.query.weight[0].0": num_heads, f"blocks.{i}.up": hidden}
    return found


def _build(sizes: Sizes) -> nn.Module:
    widths = list(sizes.values())
    return CharGPT(widths[::2], widths[1::2])


def _adamw(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)


def _nats(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of a window, the mean over its characters."""
    return F.cross_entropy(outputs.transpose(1, 2), targets, reduction="none").mean(1)


_STEPS = 980  # one epoch

CHAR_GPT = Task(
    name="b4-char-gpt",
    title="B4, character GPT of two blocks on tiny Shakespeare, 2 to 8 heads and 64 to 256 hidden units",
    load=_load,
    build=_build,
    small=_axes(2, 64),
    full=_axes(8, 256),
    loss=_nats,
    score=Score(of=_nats, name="test nats per character", higher_is_better=False),
    optimizer=_adamw,
    learning_rates=(0.002, 0.004, 0.008, 0.016),
    learning_rate=0.008,
    warmup_steps=50,
    batch_size=32,
    steps=_STEPS,
    events=(0.35,),
    ours=nx.MorphogenesisConfig(
        kinds=("Widen",),
        widen_ratio=4.0,
        edits_per_event=4,
        triggers=("schedule",),
        schedule_epochs=(0.35,),
        first_epoch=0.0,
        trial_epochs=0.0,
        max_events=1,
    ),
    num_deciding=400,
    seeds=3,
    bars=(Bar(arm="ours", max_overhead=0.05),),
)
