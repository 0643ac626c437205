"""torchvision: all its classification models, two segmentation models and a detection backbone.

Sides of the input: small where the model takes any size, the constructor's own where it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

ANY_SIZE = 96  # side of the images for models that take any; not used by any other
FULL_SIZE = 224

_TAKE_ANY_SIZE = """
alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161 densenet169 densenet201
efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6
efficientnet_b7 efficientnet_v2_l efficientnet_v2_m efficientnet_v2_s mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3
mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_16gf regnet_x_1_6gf regnet_x_32gf regnet_x_3_2gf
regnet_x_400mf regnet_x_800mf regnet_x_8gf regnet_y_128gf regnet_y_16gf regnet_y_1_6gf regnet_y_32gf regnet_y_3_2gf
regnet_y_400mf regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18 resnet34 resnet50 resnext101_32x8d
resnext101_64x4d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0
squeezenet1_0 squeezenet1_1 vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn wide_resnet101_2
wide_resnet50_2
""".split()

# name -> (side of the input, arguments of the constructor)
TORCHVISION_MODELS: Mapping[str, tuple[int, dict[str, Any]]] = {
    **{name: (ANY_SIZE, {}) for name in _TAKE_ANY_SIZE},
    "googlenet": (224, {"init_weights": False}),
    "inception_v3": (299, {"init_weights": False}),
    "maxvit_t": (224, {}),
    **{f"swin_{size}": (224, {}) for size in "tsb"},
    **{f"swin_v2_{size}": (256, {}) for size in "tsb"},
    "vit_b_16": (128, {"image_size": 128}),
    "vit_b_32": (128, {"image_size": 128}),
    "vit_l_16": (128, {"image_size": 128}),
    "vit_l_32": (128, {"image_size": 128}),
    "vit_h_14": (98, {"image_size": 98}),
}
VISION_TASKS = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "resnet50_fpn")


def build_torchvision(name: str) -> nn.Module:
    """Returns a model of torchvision with random weights."""
    import torchvision

    if name == "resnet50_fpn":
        backbone = torchvision.models.detection.backbone_utils.resnet_fpn_backbone
        return backbone(backbone_name="resnet50", weights=None, trainable_layers=5)
    if name in VISION_TASKS:
        return torchvision.models.get_model(name, weights=None, weights_backbone=None)
    return torchvision.models.get_model(name, weights=None, **TORCHVISION_MODELS[name][1])
