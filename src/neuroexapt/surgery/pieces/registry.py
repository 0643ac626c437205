"""The table of pieces: a new one is a file in this folder and a line here."""

from torch import nn

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
from neuroexapt.surgery.pieces.skip_connection import SkipConnection

PIECES: dict[str, type[nn.Module]] = {
    "ConvBranch": ConvBranch,
    "InsertedConv": InsertedConv,
    "InsertedLinear": InsertedLinear,
    "ChannelGate": ChannelGate,
    "Downsample": Downsample,
    "InsertedSeparable": InsertedSeparable,
    "LocalChannelGate": LocalChannelGate,
    "LowRankBranch": LowRankBranch,
    "PooledContext": PooledContext,
    "PositionAttention": PositionAttention,
    "RampedDropPath": RampedDropPath,
    "RampedDropout": RampedDropout,
    "SkipConnection": SkipConnection,
    "GatedOperation": GatedOperation,
}
