"""The list: every model by name, with its family; how it is built; random inputs for it.

All models have random weights from one seed. Fresh zeros and ones (norm gains, layer scales, position tables) would
hide errors, because exchanging or zeroing equal numbers does nothing; so they are moved off, the same way for all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from survey.own_models import ShuffleUNet, UNet
from survey.third_party import prepare_third_party
from survey.timm_models import TIMM_MODELS
from survey.torchvision_models import ANY_SIZE, FULL_SIZE, TORCHVISION_MODELS, VISION_TASKS, build_torchvision
from survey.transformer_models import TRANSFORMERS, build_transformer, transformer_inputs

SEED = 0
OWN_MODELS = {"unet": UNet, "shuffle_unet": ShuffleUNet}
FAMILIES = {
    "torchvision": tuple(TORCHVISION_MODELS),
    "timm": tuple(TIMM_MODELS),
    "transformers": tuple(TRANSFORMERS),
    "other": (*VISION_TASKS, *OWN_MODELS),
}
NAMES = tuple(f"{family}/{name}" for family, names in FAMILIES.items() for name in names)
NOISE = 0.1
GIANT = 150_000_000  # parameters; such models are measured one at a time, and fewer edits of them are applied
GIANTS = (
    "torchvision/convnext_large",
    "torchvision/regnet_y_128gf",
    "torchvision/vit_h_14",
    "torchvision/vit_l_16",
    "torchvision/vit_l_32",
    "timm/deepseek_vit_412m",
    "timm/gemma4_vit_167m",
)


def build(name: str) -> nn.Module:
    """Returns a model of the list in eval mode, the same for the same name every time."""
    prepare_third_party()
    family, _, plain = name.partition("/")
    torch.manual_seed(SEED)
    if family == "timm":
        import timm

        model = timm.create_model(plain, pretrained=False, **TIMM_MODELS[plain][2])
    elif family == "transformers":
        model = build_transformer(plain)
    elif plain in OWN_MODELS:
        model = OWN_MODELS[plain]()
    else:
        model = build_torchvision(plain)
    move_off_constants(model)
    return model.eval()


def inputs(name: str, seed: int, is_full_size: bool = False) -> Any:
    """Returns one random batch: a tuple of positional or a dictionary of keyword arguments.

    Args:
        name: Of the model.
        seed: Of the batch.
        is_full_size: Images of at least 224 pixels for the models that take any size; edits are made on smaller ones.
    """
    generator = torch.Generator().manual_seed(seed)
    family, _, plain = name.partition("/")
    if family == "transformers":
        return transformer_inputs(plain, generator)
    batch, side = _image_shape(family, plain)
    if is_full_size and side == ANY_SIZE:
        side = FULL_SIZE
    return (torch.randn(batch, 3, side, side, generator=generator),)


def move_off_constants(model: nn.Module) -> None:
    """Adds noise to parameters of at most one dimension and to constant ones, and to running statistics."""
    generator = torch.Generator().manual_seed(SEED)

    def noise(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator).to(tensor)

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and (parameter.dim() <= 1 or _is_constant(parameter)):
                parameter.add_(NOISE * noise(parameter))
        for key, buffer in model.named_buffers():
            if key.endswith("running_var"):
                buffer.mul_(1 + NOISE * noise(buffer).abs())
            elif key.endswith("running_mean"):
                buffer.add_(NOISE * noise(buffer))


def _is_constant(tensor: Tensor) -> bool:
    return tensor.numel() > 0 and bool((tensor == tensor.flatten()[0]).all())


def _image_shape(family: str, name: str) -> tuple[int, int]:
    """Returns batch size and side."""
    if family == "timm":
        return 2, TIMM_MODELS[name][1]
    if name in OWN_MODELS:
        return 2, 32
    if name in VISION_TASKS:
        return 4, ANY_SIZE  # pooled to one position and normalised over the batch: two samples would all be +-1
    return 2, TORCHVISION_MODELS[name][0]
