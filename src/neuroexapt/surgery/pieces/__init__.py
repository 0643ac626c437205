"""The modules that edits insert: few, small, plain PyTorch."""

from neuroexapt.surgery.pieces.inserted_conv import InsertedConv
from neuroexapt.surgery.pieces.inserted_linear import InsertedLinear
from neuroexapt.surgery.pieces.registry import PIECES

__all__ = ["PIECES", "InsertedConv", "InsertedLinear"]
