"""``build_model``: from the name in the configuration to a network with seeded weights."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from neuroexapt.config import ModelConfig
from neuroexapt.errors import ModelError
from neuroexapt.models.convnet import ConvNet
from neuroexapt.models.imported import import_function, working_directory_importable
from neuroexapt.models.mlp import MLP
from neuroexapt.models.resnet import SmallResNet

# name -> the class, and what the data say to it: (in_channels, image_size, num_classes) -> keyword arguments
BUILT_IN: dict[str, tuple[type[nn.Module], Callable[[int, tuple[int, int], int], dict[str, int]]]] = {
    "resnet": (SmallResNet, lambda channels, size, classes: {"in_channels": channels, "num_classes": classes}),
    "convnet": (ConvNet, lambda channels, size, classes: {"in_channels": channels, "num_classes": classes}),
    "mlp": (MLP, lambda channels, size, classes: {"in_features": channels * math.prod(size), "num_classes": classes}),
}


def build_model(
    config: ModelConfig, *, in_channels: int, image_size: tuple[int, int], num_classes: int, seed: int
) -> nn.Module:
    """Builds the network that ``config`` names, with weights drawn from ``seed``.

    ``package.module:function`` is imported with the current directory on the path and called with ``in_channels``,
    ``num_classes`` and the options, all by keyword. torch's global generators are left as they were.

    Args:
        config: Name and options.
        in_channels: Channels of the images.
        image_size: Height and width of the images, in pixels.
        num_classes: How many logits to return.
        seed: Of the initial weights.

    Raises:
        ModelError: The name is unknown, the import fails, an option does not fit, the function raises, or what it
            returns is no ``nn.Module``.
    """
    if config.source in BUILT_IN:
        network, arguments_of = BUILT_IN[config.source]
        with _seeded(seed):
            return _call(config, network, arguments_of(in_channels, image_size, num_classes))
    if ":" not in config.source:
        raise ModelError(_unknown(config.source))
    with working_directory_importable(), _seeded(seed):
        function = import_function(config.source)
        return _call(config, function, {"in_channels": in_channels, "num_classes": num_classes})


def _call(config: ModelConfig, function: Callable[..., Any], arguments: dict[str, int]) -> nn.Module:
    where = f"model {config.source!r}"
    both = sorted(arguments.keys() & config.options.keys())
    if both:
        raise ModelError(f"{where}: found the option {both[0]!r}, which the data decide. Remove it from model.options.")
    keywords = {**arguments, **config.options}
    _check_arguments(where, function, keywords)
    try:
        model = function(**keywords)
    except ModelError:
        raise
    except Exception as error:  # the edge to the user's code: its own error is the message
        raise ModelError(f"{where}: {type(error).__name__}: {error}. Called with {keywords}.") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{where}: found {type(model).__name__}, needed an nn.Module. Return the network itself.")
    return model


def _check_arguments(where: str, function: Callable[..., Any], keywords: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions have none; the call itself will tell
        return
    try:
        signature.bind(**keywords)
    except TypeError as error:
        names = list(signature.parameters)
        unknown = next((key for key in keywords if key not in names), "")
        close = difflib.get_close_matches(unknown, [name for name in names if name not in keywords], n=1)
        hint = f"Did you mean {close[0]!r}?" if close else "Correct model.options or the function."
        raise ModelError(
            f"{where}: {error}. It takes ({', '.join(names)}) and is called with ({', '.join(keywords)}). {hint}"
        ) from None


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds torch's generators for a while; without CUDA in use, CUDA is not touched at all."""
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if in_use else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield


def _unknown(source: str) -> str:
    close = difflib.get_close_matches(source, BUILT_IN, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return (
        f"model.source: found {source!r}, needed {', '.join(repr(name) for name in BUILT_IN)} or "
        f"'package.module:function'.{hint} Correct the name."
    )
