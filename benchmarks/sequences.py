"""Thirty random edits in a row on models that people use: exact, reversible to the first bit, replayable, trainable.

Each model twice: edits that preserve the function in eval mode only, and edits of all kinds, pruning among them.
Results go to ``benchmarks/results/sequences.{json,md}``; finished rows are not repeated. One thread, minutes a model.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from survey.model_list import move_off_constants
from survey.sequence import run_sequence
from survey.third_party import prepare_third_party
from torch import nn

RESULTS = Path(__file__).parent / "results"
SIZE = 64  # of images, in pixels
HEADER = (
    "| model | drawn | seed | edits | kinds | refused draws | product of changes - 1 | change on unseen data | size "
    "| reverted to the first bit | replayed | trains | seconds |"
)


def _timm(name: str, **arguments: Any) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=10, **arguments)


def _torchvision(name: str) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(name, weights=None, num_classes=10)


def _gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=256, n_positions=64, n_embd=96, n_layer=4, n_head=4, use_cache=False)
    return GPT2LMHeadModel(config)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: _torchvision("resnet18"),
    "mobilenet_v3_small": lambda: _torchvision("mobilenet_v3_small"),
    "convnext_atto": lambda: _timm("convnext_atto"),
    "vit_tiny": lambda: _timm("vit_tiny_patch16_224", img_size=SIZE, patch_size=8, depth=4),
    "gpt2": _gpt2,
}


def batch(name: str, seed: int) -> Any:
    """One batch of random images or tokens."""
    generator = torch.Generator().manual_seed(seed)
    if name == "gpt2":
        return {"input_ids": torch.randint(0, 256, (4, 32), generator=generator)}
    return torch.randn(4, 3, SIZE, SIZE, generator=generator)


def row(name: str, seed: int, length: int, only_exact: bool) -> dict[str, Any]:
    """One sequence on one model."""
    prepare_third_party()
    torch.manual_seed(seed)
    model = MODELS[name]()
    move_off_constants(model)
    began = time.perf_counter()
    found = run_sequence(model, batch(name, 1), batch(name, 2), length=length, seed=seed, only_exact=only_exact)
    seconds = time.perf_counter() - began
    edits = "exact" if only_exact else "all"
    return {"model": name, "drawn": edits, "seed": seed, "seconds": seconds, "is_sound": found.is_sound, **vars(found)}


def table(rows: list[dict[str, Any]]) -> str:
    """All rows as Markdown."""
    lines = [
        HEADER,
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        finite = all(abs(loss) < float("inf") for loss in r["losses"])
        words = ["no", "yes"]
        lines.append(
            f"| {r['model']} | {r['drawn']} | {r['seed']} | {len(r['edits'])} | {len(r['kinds'])} "
            f"| {sum(r['refused'].values())} "
            f"| {r['product'] - 1:.1e} | {r['unseen_change']:.1e} | x {r['growth']:.2f} | {words[r['is_reverted']]} "
            f"| {words[r['is_replayed']]} | {words[finite]} | {r['seconds']:.0f} |"
        )
    return "\n".join(["# Random sequences of edits", "", *lines, ""])


def main() -> None:
    """Runs what is missing and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--out", type=Path, default=Path("runs/sequences.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    for name in options.models:
        for seed, only_exact in itertools.product(range(options.seeds), (True, False)):
            key = (name, "exact" if only_exact else "all", seed)
            if not any((r["model"], r["drawn"], r["seed"]) == key for r in done):
                done.append(row(name, seed, options.length, only_exact))
                with options.out.open("a") as file:
                    file.write(json.dumps(done[-1]) + "\n")
                print(table(done[-1:]).splitlines()[-1], flush=True)
    RESULTS.joinpath("sequences.md").write_text(table(done))
    RESULTS.joinpath("sequences.json").write_text(json.dumps({"torch": torch.__version__, "runs": done}, indent=1))


if __name__ == "__main__":
    main()
