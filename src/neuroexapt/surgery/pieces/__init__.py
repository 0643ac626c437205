"""The modules that edits insert: few, small, plain PyTorch."""

from neuroexapt.surgery.pieces.channel_gate import ChannelGate
from neuroexapt.surgery.pieces.downsample import Downsample
from neuroexapt.surgery.pieces.inserted_conv import InsertedConv
from neuroexapt.surgery.pieces.inserted_linear import InsertedLinear
from neuroexapt.surgery.pieces.local_channel_gate import LocalChannelGate
from neuroexapt.surgery.pieces.pooled_context import PooledContext
from neuroexapt.surgery.pieces.position_attention import PositionAttention
from neuroexapt.surgery.pieces.ramped_drop_path import RampedDropPath
from neuroexapt.surgery.pieces.ramped_dropout import RampedDropout
from neuroexapt.surgery.pieces.registry import PIECES

__all__ = [
    "PIECES",
    "ChannelGate",
    "Downsample",
    "InsertedConv",
    "InsertedLinear",
    "LocalChannelGate",
    "PooledContext",
    "PositionAttention",
    "RampedDropPath",
    "RampedDropout",
]
