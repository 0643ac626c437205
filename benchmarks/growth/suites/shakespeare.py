"""The characters of tiny Shakespeare, in windows.

Read from ``$NEUROEXAPT_DATA/tinyshakespeare`` (``../shared/data`` beside the repository by default).
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from growth.task import Data, Split

_BESIDE = Path(__file__).parents[3] / ".." / "shared" / "data"


def windows(length: int, stride: int) -> Data | str:
    """Returns characters and those that follow them, int64 [n, length], or a sentence where the text is not there.

    The first nine tenths of the text train, in windows every ``stride`` characters; of the rest the first half
    validates and the second tests, in windows that do not overlap.
    """
    path = Path(os.environ.get("NEUROEXAPT_DATA") or _BESIDE) / "tinyshakespeare" / "input.txt"
    if not path.is_file():
        return "there is no tinyshakespeare in $NEUROEXAPT_DATA, nor in ../shared/data beside the repository."
    text = path.read_text(encoding="utf-8")
    codes = {character: code for code, character in enumerate(sorted(set(text)))}
    encoded = torch.tensor([codes[character] for character in text])
    begin, middle = int(0.9 * len(encoded)), int(0.95 * len(encoded))

    def cut(part: torch.Tensor, step: int) -> Split:
        found = part.unfold(0, length + 1, step)
        return Split(found[:, :-1].contiguous(), found[:, 1:].contiguous())

    return Data(cut(encoded[:begin], stride), cut(encoded[begin:middle], length), cut(encoded[middle:], length))
