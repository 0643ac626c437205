"""The modules that edits insert: few, small, plain PyTorch."""

from torch import nn

from neuroexapt.surgery.pieces.inserted_conv import InsertedConv
from neuroexapt.surgery.pieces.inserted_linear import InsertedLinear

PIECES: dict[str, type[nn.Module]] = {
    "InsertedConv": InsertedConv,
    "InsertedLinear": InsertedLinear,
}

__all__ = ["PIECES", "InsertedConv", "InsertedLinear"]
