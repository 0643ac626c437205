"""Small variants of models that people really use: the same code paths as the large ones, in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from survey.model_list import move_off_constants
from survey.observe import to_double
from survey.third_party import prepare_third_party
from survey.transformer_models import TRANSFORMERS, build_transformer, transformer_inputs
from torch import nn

_IMAGE = 32
_CLASSES = {"num_classes": 5}
_VIT = {"embed_dim": 16, "depth": 1, "num_heads": 2, "img_size": _IMAGE, "patch_size": 8, **_CLASSES}
_ONE_LAYER = {
    "gpt2": {"n_layer": 1},
    "t5": {"num_layers": 1},
    "swin": {"depths": [1, 1]},
    "clip": {},
    "whisper": {"encoder_layers": 1, "decoder_layers": 1},
    "wav2vec2": {"num_hidden_layers": 1, "conv_dim": (8, 8), "conv_kernel": (5, 3), "conv_stride": (5, 2)},
}


def _resnet() -> nn.Module:
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, [1, 1, 1, 1], groups=4, width_per_group=2, **_CLASSES)


def _densenet() -> nn.Module:
    from torchvision.models import DenseNet

    return DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, bn_size=2, **_CLASSES)


def _efficientnet() -> nn.Module:
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    blocks = [MBConvConfig(1, 3, 1, 8, 8, 1, 1, 1), MBConvConfig(4, 3, 2, 8, 12, 2, 1, 1)]
    return EfficientNet(blocks, dropout=0.2, stochastic_depth_prob=0.0, last_channel=24, **_CLASSES)


def _mobilenet() -> nn.Module:
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    blocks = [
        InvertedResidualConfig(8, 3, 16, 8, True, "RE", 2, 1, 1),
        InvertedResidualConfig(8, 5, 24, 12, True, "HS", 2, 1, 1),
    ]
    return MobileNetV3(blocks, 24, **_CLASSES)


def _convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    blocks = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)]
    return ConvNeXt(blocks, stochastic_depth_prob=0.0, **_CLASSES)


def _shufflenet() -> nn.Module:
    from torchvision.models import ShuffleNetV2

    return ShuffleNetV2([2, 1, 1], [8, 16, 24, 32, 40], **_CLASSES)


def _torchvision_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=_IMAGE, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=24, **_CLASSES
    )


def _torchvision_swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 8, [2, 1], [2, 4], [4, 4], stochastic_depth_prob=0.0, **_CLASSES)


def _timm(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, **arguments)

    return build


def _mixer() -> nn.Module:
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(img_size=_IMAGE, patch_size=8, num_blocks=1, embed_dim=16, **_CLASSES)


_BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "torchvision_resnext": _resnet,
    "torchvision_densenet": _densenet,
    "torchvision_efficientnet": _efficientnet,
    "torchvision_mobilenet_v3": _mobilenet,
    "torchvision_convnext": _convnext,
    "torchvision_shufflenet": _shufflenet,
    "torchvision_vit": _torchvision_vit,
    "torchvision_swin": _torchvision_swin,
    "timm_vit": _timm("vit_tiny_patch16_224", **_VIT),
    "timm_beit": _timm("beit_base_patch16_224", **_VIT),
    "timm_cait": _timm("cait_xxs24_224", **{**_VIT, "depth_token_only": 1}),
    "timm_mixer": _mixer,
    **{
        name: lambda name=name: build_transformer(name, _ONE_LAYER.get(name))
        for name in TRANSFORMERS
        if name != "mixtral"  # its grouped product runs on fake tensors in bfloat16 only
    },
}
NAMES = tuple(_BUILDERS)


def build(name: str, dtype: torch.dtype) -> nn.Module:
    """Builds one model with random weights that hide no error."""
    prepare_third_party()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _BUILDERS[name]()
    move_off_constants(model)
    return model.to(dtype).eval()


def batch(name: str, dtype: torch.dtype, seed: int) -> Any:
    """One random batch for it."""
    generator = torch.Generator().manual_seed(seed)
    if name in TRANSFORMERS:
        inputs: Any = transformer_inputs(name, generator)
    else:
        inputs = (torch.randn(3, 3, _IMAGE, _IMAGE, generator=generator),)
    return to_double(inputs) if dtype == torch.float64 else inputs
