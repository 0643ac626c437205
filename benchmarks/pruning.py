"""Pruning a small ResNet on CIFAR-10 without fine-tuning: ``select_units`` and repair against torch-pruning.

One network (``small_resnet.py``), one run: at each size torch-pruning prunes first, by bisecting its ratio until it is
just below the wanted fraction of parameters; ours then removes at least as many. Calibration images come from the
training split, the same for all, another sample for each seed; the test images only report. torch-pruning repairs
nothing; our ``repair`` moves running statistics of batch norms behind pruned inputs on the calibration images, so
both are also shown with all batch norms recalibrated on these.

``python benchmarks/pruning.py``; the trained network stays in ``--out``. Needs torch-pruning.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torch_pruning as tp
from small_resnet import Data, accuracy, load, trained
from torch import Tensor, nn

import neuroexapt as nx

RESULTS = Path(__file__).parent / "results"
IMPORTANCES = ("magnitude", "taylor")
REPAIRS = ("none", "mean", "least_squares")
THEIRS = {"magnitude": tp.importance.GroupMagnitudeImportance, "taylor": tp.importance.GroupTaylorImportance}
BISECTIONS = 9
EXAMPLES = 32  # images on which edits are verified


def count(model: nn.Module) -> int:
    """Parameters of a model."""
    return sum(p.numel() for p in model.parameters())


def loss_on(x: Tensor, y: Tensor) -> Callable[[nn.Module], Tensor]:
    """The objective of calibration."""
    return lambda model: F.cross_entropy(model(x), y)


def theirs(model: nn.Module, x: Tensor, y: Tensor, kind: str, wanted: float, is_global: bool) -> nn.Module:
    """Prunes with torch-pruning to at most ``wanted`` parameters, as few as its steps allow."""
    low, high, best = 0.0, 0.95, model
    for _ in range(BISECTIONS):
        ratio = (low + high) / 2
        pruned = copy.deepcopy(model)
        pruner = tp.pruner.BasePruner(
            pruned, x[:2], THEIRS[kind](), pruning_ratio=ratio, global_pruning=is_global, ignored_layers=[pruned[-1]]
        )
        if kind == "taylor":
            loss_on(x, y)(pruned).backward()
        pruner.step()
        if count(pruned) <= wanted:
            high, best = ratio, pruned
        else:
            low = ratio
    return best


def recalibrated(model: nn.Module, x: Tensor) -> nn.Module:
    """Gives every batch norm the statistics of the calibration images."""
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        model(x)
    return model.eval()


def ours(model: nn.Module, x: Tensor, y: Tensor, kind: str, wanted: float, repair: str) -> nn.Module:
    """Prunes with ``select_units`` to at most ``wanted`` parameters."""
    pruned = copy.deepcopy(model)
    surgeon = nx.Surgeon(pruned, x[:EXAMPLES], objective=loss_on(x, y))
    gone = count(model) - int(wanted)
    for edit in nx.select_units(surgeon.graph, num_parameters=gone, importance=kind, repair=repair):
        surgeon.apply(edit)
        surgeon.forget_patches()
    return pruned.eval()


def rows(model: nn.Module, data: Data, fraction: float, seed: int, num_images: int) -> list[dict[str, Any]]:
    """All arms at one size with one sample of calibration images."""
    chosen = torch.randperm(len(data.y), generator=torch.Generator().manual_seed(seed))[:num_images]
    x, y, wanted = data.x[chosen], data.y[chosen], fraction * count(model)
    found = []

    def add(arm: str, kind: str, pruned: nn.Module) -> None:
        score = accuracy(pruned, data.test_x, data.test_y)
        found.append(
            {"fraction": fraction, "seed": seed, "arm": arm, "importance": kind, "parameters": count(pruned),
             "test_accuracy": score}
        )  # fmt: skip
        print(json.dumps(found[-1]), flush=True)

    for kind in IMPORTANCES:
        sizes = []
        for scope, is_global in (("global", True), ("local", False)):
            pruned = theirs(model, x, y, kind, wanted, is_global)
            sizes.append(count(pruned))
            add(f"torch-pruning, {scope}", kind, pruned)
            add(f"torch-pruning, {scope}, BN recalibrated", kind, recalibrated(pruned, x))
        for repair in REPAIRS:
            pruned = ours(model, x, y, kind, sizes[0], repair)
            add(f"ours, repair {repair}", kind, pruned)
            if repair != "mean":
                add(f"ours, repair {repair}, BN recalibrated", kind, recalibrated(pruned, x))
    return found


def table(found: list[dict[str, Any]], command: str, unpruned: float, total: int) -> str:
    """The results as markdown: mean over the seeds, and the range."""
    lines = [
        f"`{command}`; a ResNet of {total:,} parameters, test accuracy {100 * unpruned:.2f} %, before any fine-tuning. "
        f"torch {torch.__version__}, torch-pruning {version('torch-pruning')}. Mean over the samples of calibration "
        "images, lowest and highest in brackets. The method was settled on the network of seed 0; this one was pruned "
        "for the first time here.",
        "",
        "| parameters left (asked) | importance | arm | parameters | test accuracy % |",
        "|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((r["fraction"], r["importance"], r["arm"]) for r in found):
        same = [r for r in found if (r["fraction"], r["importance"], r["arm"]) == key]
        scores = [100 * r["test_accuracy"] for r in same]
        size = statistics.mean(r["parameters"] for r in same)
        spread = f" ({min(scores):.1f} to {max(scores):.1f})" if len(scores) > 1 else ""
        lines.append(f"| {key[0]:.0%} | {key[1]} | {key[2]} | {size:,.0f} | {statistics.mean(scores):.2f}{spread} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Trains or loads, prunes, reports; finished rows are kept in ``--out`` and not made again."""
    parser = argparse.ArgumentParser(description=__doc__)
    data_default = f"{os.environ.get('NEUROEXAPT_DATA', '../shared/data')}/cifar10"
    parser.add_argument("--data", default=data_default)
    parser.add_argument("--out", type=Path, default=Path("runs/pruning"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.85, 0.7, 0.5])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--network-seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load(options.data)
    model = trained(data, options.out, options.epochs, options.network_seed)
    kept = options.out / f"rows-{options.network_seed}-{options.images}.jsonl"
    unpruned = accuracy(model, data.test_x, data.test_y)
    known = [json.loads(line) for line in kept.read_text("utf-8").splitlines()] if kept.exists() else []
    found = []
    for fraction in options.fractions:
        for seed in range(options.seeds):
            here = [r for r in known if r["fraction"] == fraction and r["seed"] == seed]
            if not here:
                here = rows(model, data, fraction, seed, options.images)
                with kept.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(row) + "\n" for row in here)
            found += here
    command = (
        f"python benchmarks/pruning.py --epochs {options.epochs} --seeds {options.seeds} --images {options.images} "
        f"--network-seed {options.network_seed}"
    )
    facts = {"command": command, "unpruned": unpruned, "parameters": count(model), "rows": found}
    text = table(found, command, unpruned, count(model))
    print(text)
    (RESULTS / "pruning.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "pruning.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
