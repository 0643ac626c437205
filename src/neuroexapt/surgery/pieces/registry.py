"""The table of pieces: a new one is a file in this folder and a line here."""

from torch import nn

from neuroexapt.surgery.pieces.inserted_conv import InsertedConv
from neuroexapt.surgery.pieces.inserted_linear import InsertedLinear

PIECES: dict[str, type[nn.Module]] = {
    "InsertedConv": InsertedConv,
    "InsertedLinear": InsertedLinear,
}
