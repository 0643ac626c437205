"""How far the prediction of a training step's bytes is from what is allocated, before and after edits.

``Surgeon.forecast`` runs on fake tensors. Beside it a real step (zero_grad, forward, backward, optimizer) is measured
in a way of its own: on CPU the running sum of every allocation that ``torch.profiler`` records, on CUDA the allocator's
own high-water mark. Widths and batches are small, so that everything runs on a laptop; weights are random.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from survey.step_bytes import measured
from survey.third_party import prepare_third_party
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer, RMSprop

import neuroexapt as nx

RESULTS = Path(__file__).parent / "results"
BAR = 0.1
OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "SGD, momentum": lambda p: SGD(p, lr=1e-4, momentum=0.9),
    "AdamW": lambda p: AdamW(p, lr=1e-4),
    "AMSGrad": lambda p: AdamW(p, lr=1e-4, amsgrad=True),
    "RMSprop, centered": lambda p: RMSprop(p, lr=1e-4, centered=True),
}


class Logits(nn.Module):
    """A language model as tokens to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps [N, T] to [N, T, vocabulary]."""
        return self.model(tokens, use_cache=False).logits


def resnet18() -> tuple[nn.Module, Tensor, list[nx.Mutation]]:
    """ResNet-18 of torchvision on 64x64 images, 32 at a time."""
    import torchvision

    edits = [nx.Widen(axis="layer2.0.conv1", to=192), nx.InsertLayer(site="layer1.1.bn1")]
    return torchvision.models.resnet18(num_classes=10), torch.randn(32, 3, 64, 64), edits


def vit_tiny() -> tuple[nn.Module, Tensor, list[nx.Mutation]]:
    """ViT-tiny (192 wide, 3 heads, 12 deep) of torchvision on 64x64 images in patches of 8."""
    from torchvision.models import VisionTransformer

    model = VisionTransformer(
        image_size=64, patch_size=8, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768, num_classes=10
    )
    return model, torch.randn(16, 3, 64, 64), [nx.Widen(axis="encoder.layers.encoder_layer_5.mlp.0", to=1536)]


def gpt2_tiny() -> tuple[nn.Module, Tensor, list[nx.Mutation]]:
    """GPT-2 of Transformers, 4 layers of 128, a vocabulary of 1,000, 8 sequences of 128."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=4, n_embd=128, n_head=4, vocab_size=1000, n_positions=128)
    edits = [nx.Widen(axis="model.transformer.h.1.mlp.c_fc", to=1024)]
    return Logits(GPT2LMHeadModel(config)), torch.randint(0, 1000, (8, 128)), edits


def seed_network() -> tuple[nn.Module, Tensor, list[nx.Mutation]]:
    """The library's own ``resnet`` on 32x32 images, 128 at a time."""
    from neuroexapt.models import build_model

    model = build_model(nx.ModelConfig(source="resnet"), in_channels=3, image_size=(32, 32), num_classes=10, seed=0)
    edits = [nx.Widen(axis="blocks.1.conv1", to=32), nx.InsertLayer(site="blocks.0.relu1")]
    return model, torch.randn(128, 3, 32, 32), edits


def toy_separable() -> tuple[nn.Module, Tensor, list[nx.Mutation]]:
    """A depthwise-separable toy of 6 and 8 channels on 8x8 images, 32 at a time: the scratch of kernels counts most."""
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.ReLU()),
        *(nn.Conv2d(6, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)),
    )
    return model, torch.randn(32, 3, 8, 8), []


def toy_flat() -> tuple[nn.Module, Tensor, list[nx.Mutation]]:
    """A convolution of 4 channels and a linear layer on 8x8 images, 32 at a time."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))
    return model, torch.randn(32, 3, 8, 8), []


MODELS = {
    "resnet18": resnet18,
    "vit_tiny": vit_tiny,
    "gpt2_tiny": gpt2_tiny,
    "seed resnet": seed_network,
    "toy separable": toy_separable,
    "toy flat": toy_flat,
}


def rows_of(name: str, kind: str, device: torch.device) -> list[dict[str, Any]]:
    """Predicts and measures a model under an optimizer, as it is and after each edit in turn."""
    torch.manual_seed(0)
    model, inputs, edits = MODELS[name]()
    model, inputs = model.to(device), inputs.to(device)
    optimizer = OPTIMIZERS[kind](model.parameters())
    surgeon = nx.Surgeon(model, inputs[:2], optimizer)
    found = []
    for edit in (None, *edits):
        surgeon.plan(edit) if edit else surgeon.graph
        began = time.perf_counter()
        forecast = surgeon.forecast(edit, batch_size=len(inputs))
        seconds = time.perf_counter() - began
        label = "as it is"
        if edit is not None:
            optimizer.zero_grad()
            label = surgeon.apply(edit).description
            surgeon.forget_patches()
        real = measured(model, inputs, optimizer)
        found.append(
            {
                "device": device.type,
                "model": name,
                "optimizer": kind,
                "edit": label,
                "predicted_bytes": forecast.peak_bytes,
                "measured_bytes": real,
                "error": forecast.peak_bytes / real - 1,
                "parameter_bytes": forecast.parameter_bytes,
                "gradient_bytes": forecast.gradient_bytes,
                "optimizer_bytes": forecast.optimizer_bytes,
                "activation_bytes": forecast.activation_bytes,
                "seconds": seconds,
            }
        )
        print(f"{name}, {kind}, {label}: {found[-1]['error']:+.2%}, {seconds:.2f} s", flush=True)
    return found


def as_markdown(record: dict[str, Any]) -> str:
    """The table."""
    rows = record["rows"]
    worst = max(rows, key=lambda row: abs(row["error"]))
    lines = [
        "# Predicted and measured bytes of a training step",
        "",
        f"`python benchmarks/forecast.py`, {', '.join(record['environments'].values())}. "
        f"Largest error {worst['error']:+.2%} ({worst['model']}, {worst['optimizer']}, {worst['device']}) over "
        f"{len(rows)} steps; {sum(abs(row['error']) <= BAR for row in rows)} of them within {BAR:.0%}. CPU: all "
        "allocations that `torch.profiler` records. CUDA: the allocator's high-water mark.",
        "",
        "| device | model | optimizer | edit | predicted (MiB) | measured (MiB) | error | seconds to predict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        mib = [row[key] / 2**20 for key in ("predicted_bytes", "measured_bytes")]
        lines.append(
            f"| {row['device']} | {row['model']} | {row['optimizer']} | {row['edit']} | {mib[0]:.2f} | {mib[1]:.2f} | "
            f"{row['error']:+.2%} | {row['seconds']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs everything on one device and writes the table, with what is known of other devices."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of forecast.json and forecast.md")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    prepare_third_party()
    device = torch.device(options.device)
    place = options.out / "forecast.json"
    known = json.loads(place.read_text()) if place.exists() else {"environments": {}, "rows": []}
    rows = [row for name in MODELS for kind in OPTIMIZERS for row in rows_of(name, kind, device)]
    machine = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    record = {
        "environments": known["environments"] | {device.type: f"torch {torch.__version__} on {machine}"},
        "rows": [row for row in known["rows"] if row["device"] != device.type] + rows,
    }
    place.write_text(json.dumps(record, indent=1) + "\n")
    (options.out / "forecast.md").write_text(as_markdown(record))


if __name__ == "__main__":
    main()
