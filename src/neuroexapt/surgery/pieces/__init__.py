"""The modules that edits insert: few, small, plain PyTorch."""

from neuroexapt.surgery.pieces.channel_gate import ChannelGate
from neuroexapt.surgery.pieces.conv_branch import ConvBranch
from neuroexapt.surgery.pieces.downsample import Downsample
from neuroexapt.surgery.pieces.gated_operation import GatedOperation
from neuroexapt.surgery.pieces.inserted_conv import InsertedConv
from neuroexapt.surgery.pieces.inserted_linear import InsertedLinear
from neuroexapt.surgery.pieces.inserted_separable import InsertedSeparable
from neuroexapt.surgery.pieces.local_channel_gate import LocalChannelGate
from neuroexapt.surgery.pieces.low_rank_branch import LowRankBranch
from neuroexapt.surgery.pieces.pooled_context import PooledContext
from neuroexapt.surgery.pieces.position_attention import PositionAttention
from neuroexapt.surgery.pieces.ramped_drop_path import RampedDropPath
from neuroexapt.surgery.pieces.ramped_dropout import RampedDropout
from neuroexapt.surgery.pieces.registry import PIECES
from neuroexapt.surgery.pieces.skip_connection import SkipConnection
from neuroexapt.surgery.pieces.wire import Wire

__all__ = [
    "PIECES",
    "ChannelGate",
    "ConvBranch",
    "Downsample",
    "GatedOperation",
    "InsertedConv",
    "InsertedLinear",
    "InsertedSeparable",
    "LocalChannelGate",
    "LowRankBranch",
    "PooledContext",
    "PositionAttention",
    "RampedDropPath",
    "RampedDropout",
    "SkipConnection",
    "Wire",
]
