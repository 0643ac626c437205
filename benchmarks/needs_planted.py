"""Whether the bottleneck report finds what was planted in small trained networks, and how steady it is.

A network of four hidden layers of 48 units learns the labels that another, random one gives. Planted is a hidden layer
of 4 units (it should be *wider*), or one that was trained with 12 units and then copied to 48 without a change of the
function (*less*). Counted is how often that need is raised there, whether its score is the highest of all layers, and
how many other layers raise it too. Then the report is made again from other samples, without and with the memory of the
first: how many raised needs come or go.

    python benchmarks/needs_planted.py
"""

from __future__ import annotations

import argparse
import json
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import neuroexapt as nx

RESULTS = Path(__file__).parent / "results"
HIDDEN, WIDTH, NARROW, BEFORE_COPY = 4, 48, 4, 12
IN, CLASSES, SAMPLES, STEPS, BATCH = 24, 6, 512, 150, 64
PLANTS = {"narrow": "wider", "copies": "less"}


def task(seed: int) -> tuple[Tensor, Tensor]:
    """Random inputs, and the classes that a random network of one hidden layer gives them, a little noisy."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(SAMPLES, IN, generator=generator)
    first, second = (torch.randn(size, generator=generator) for size in ((IN, 32), (32, CLASSES)))
    logits = torch.tanh(2 * inputs @ first / IN**0.5) @ second
    return inputs, (logits + 0.1 * torch.randn(logits.shape, generator=generator)).argmax(1)


def trained(widths: list[int], inputs: Tensor, labels: Tensor, seed: int) -> nn.Sequential:
    """A network with hidden layers of these widths after ``STEPS`` steps of Adam."""
    torch.manual_seed(seed)
    hidden = [m for a, b in pairwise([IN, *widths]) for m in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(*hidden, nn.Linear(widths[-1], CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(STEPS):
        rows = torch.arange(BATCH) + BATCH * (step % (SAMPLES // BATCH))
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[rows]), labels[rows]).backward()
        optimizer.step()
    return model


@torch.no_grad()
def copied(model: nn.Sequential, place: int) -> None:
    """Copies the units of a hidden layer to ``WIDTH`` of them, and shares their outgoing weights out."""
    times = WIDTH // BEFORE_COPY
    layer, reader = model[2 * place], model[2 * place + 2]
    wide, reading = nn.Linear(layer.in_features, WIDTH), nn.Linear(WIDTH, reader.out_features)
    wide.weight.copy_(layer.weight.repeat(times, 1))
    wide.bias.copy_(layer.bias.repeat(times))
    reading.weight.copy_(reader.weight.repeat(1, times) / times)
    reading.bias.copy_(reader.bias)
    model[2 * place], model[2 * place + 2] = wide, reading


def raised(report: nx.BottleneckReport) -> set[tuple[str, str]]:
    """All (layer, need) that stand out."""
    return {(layer.path, name) for layer, name, _ in report.strongest()}


def one(plant: str, place: int, seed: int) -> dict[str, Any]:
    """Plants one thing in one network and reads the report twice."""
    inputs, labels = task(seed)
    widths = [WIDTH] * HIDDEN
    widths[place] = NARROW if plant == "narrow" else BEFORE_COPY
    model = trained(widths, inputs, labels, seed)
    if plant == "copies":
        copied(model, place)
    half = SAMPLES // 2
    first, second = (
        nx.measure_evidence(model, [(inputs[rows], labels[rows])]) for rows in (slice(half), slice(half, SAMPLES))
    )
    report = nx.bottlenecks(first)
    scores = {la.path: la.needs[PLANTS[plant]].score for la in report.layers if PLANTS[plant] in la.needs}
    path, before = str(2 * place), raised(report)
    return {
        "plant": plant,
        "place": place,
        "seed": seed,
        "score": scores[path],
        "is_raised": (path, PLANTS[plant]) in before,
        "is_highest": max(scores, key=lambda key: scores[key]) == path,
        "others_raised": sum(name == PLANTS[plant] and where != path for where, name in before),
        "num_raised": len(before),
        "toggles": len(before ^ raised(nx.bottlenecks(second))),
        "toggles_with_memory": len(before ^ raised(nx.bottlenecks(second, report))),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        f"Hidden layers: {HIDDEN}, read from {SAMPLES // 2} samples. Made by `python benchmarks/needs_planted.py`.\n",
        "| planted | networks | raised there | highest score there | other layers that raise it, a network "
        "| raised needs, a network | come or go with other samples | with memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for plant, need in PLANTS.items():
        own = [row for row in rows if row["plant"] == plant]
        mean = {key: statistics.mean(row[key] for row in own) for key in own[0] if key not in ("plant", "seed")}
        lines.append(
            f"| {plant} ({need}) | {len(own)} | {mean['is_raised']:.0%} | {mean['is_highest']:.0%} "
            f"| {mean['others_raised']:.2f} | {mean['num_raised']:.2f} | {mean['toggles']:.2f} "
            f"| {mean['toggles_with_memory']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs what is missing and writes rows and table under ``benchmarks/results``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="networks for each planted thing and place (default: 10)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.out / "needs_planted.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(row["plant"], row["place"], row["seed"]) for row in rows}
    for plant in PLANTS:
        for place in range(1, HIDDEN):
            for seed in range(options.seeds):
                if (plant, place, seed) not in done:
                    rows.append(one(plant, place, seed))
                    with path.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
    (options.out / "needs_planted.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
