"""Built-in seed networks, and the way to a user's own."""

from neuroexapt.models.build import build_model
from neuroexapt.models.convnet import ConvNet
from neuroexapt.models.mlp import MLP
from neuroexapt.models.resnet import SmallResNet

__all__ = ["MLP", "ConvNet", "SmallResNet", "build_model"]
