"""What widening one layer costs, end to end, against two training steps of the same model on the same batch.

Everything an edit needs is timed: trace, self-test by permutation, plan, apply, verification on the batch in eval and
train mode, the optimizer's moments moved, and the trace of the edited model. One thread, median of the repetitions.
Beside it the peak memory of a trace of ViT-L over the bytes of its parameters, in a process of its own, as the kernel
counts resident memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from survey.memory import peak_memory
from survey.third_party import prepare_third_party
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

import neuroexapt as nx

RESULTS = Path(__file__).parent / "results"
EDITS = {"resnet50": ("layer3.2.conv1", 320), "vit_b_16": ("encoder.layers.encoder_layer_5.mlp.0", 3840)}
PARTS = ("trace", "self_test", "plan", "apply", "total", "two_steps")


def build(name: str) -> nn.Module:
    """Returns a model of torchvision with random weights."""
    prepare_third_party()
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None)


def one_edit(name: str, batch: int) -> dict[str, float]:
    """Times two training steps and one edit after them, part by part, in seconds."""
    model = build(name).train()
    optimizer = AdamW(model.parameters(), lr=1e-4)
    images, labels = torch.randn(batch, 3, 224, 224), torch.arange(batch)
    _step(model, optimizer, images, labels)  # not timed: moments are made, memory is touched for the first time
    found = {"two_steps": _seconds(lambda: [_step(model, optimizer, images, labels) for _ in range(2)])}
    optimizer.zero_grad()
    surgeon = nx.Surgeon(model, images, optimizer)
    axis, to = EDITS[name]
    mutation = nx.Widen(axis=axis, to=to)
    found["trace"] = _seconds(lambda: nx.trace(model, images).groups)
    found["self_test"] = _seconds(lambda: surgeon.graph) - found["trace"]
    found["plan"] = _seconds(lambda: surgeon.plan(mutation))
    found["apply"] = _seconds(lambda: surgeon.apply(mutation))  # plans again, verifies, and traces what it has made
    found["total"] = found["trace"] + found["self_test"] + found["apply"]
    return found


def trace_memory(name: str) -> dict[str, float]:
    """Returns the peak of a trace over the resident memory before, and its share of the parameters' bytes."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    small = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    nx.trace(small, torch.zeros(2, 1, 2, 2))  # what torch imports late is not the model's
    model, images = build(name), torch.randn(2, 3, 224, 224)
    with peak_memory() as peak:
        groups = nx.trace(model, images).groups
    num_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    return {"groups": len(groups), "extra_bytes": peak.extra_bytes, "fraction": peak.extra_bytes / num_bytes}


def _step(model: nn.Module, optimizer: Optimizer, images: Tensor, labels: Tensor) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measures and writes ``edit_cost.md`` and ``edit_cost.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    edits = {name: [one_edit(name, options.batch) for _ in range(options.repetitions)] for name in EDITS}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        memory = pool.apply(trace_memory, ("vit_l_16",))
    medians = {
        name: {part: statistics.median(run[part] for run in runs) for part in PARTS} for name, runs in edits.items()
    }
    lines = [
        f"`python benchmarks/edit_cost.py --batch {options.batch} --repetitions {options.repetitions}`; one thread, "
        f"images of 224 pixels, AdamW, float32; Python {platform.python_version()}, torch {torch.__version__}. "
        "Seconds, median. Plan is part of apply and stated for itself; total is trace + self-test + apply.",
        "",
        "| model | edit | trace | self-test | plan | apply, verify, move, trace again | total | two training steps "
        "| total / two steps |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in medians.items():
        axis, to = EDITS[name]
        cells = " | ".join(f"{found[part]:.2f}" for part in PARTS)
        lines.append(f"| {name} | {axis} to {to} | {cells} | {found['total'] / found['two_steps']:.2f} |")
    lines += [
        "",
        f"Trace of vit_l_16: peak of {memory['extra_bytes'] / 2**20:.1f} MiB above what was resident, "
        f"{100 * memory['fraction']:.2f} % of the bytes of its parameters.",
    ]
    print("\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "edit_cost.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (RESULTS / "edit_cost.json").write_text(json.dumps({"edits": edits, "memory": memory}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
