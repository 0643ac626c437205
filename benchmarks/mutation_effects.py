"""What each kind of edit does to a network in the middle of its training, on handwritten digits.

A small ResNet is trained, edited at up to three places by one kind, and trained on; beside it the same network trains
on without the edit (paired: same weights, same batches). The medians and means over the seeds go to
``benchmarks/results/mutation_effects.{json,md}`` and between the ``effect`` markers of ``docs/mutations/*.md``.
Finished rows are not repeated. One thread; about fifteen minutes for all.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import re
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW

import neuroexapt as nx
from neuroexapt.data import DataSplits, load_data
from neuroexapt.errors import SurgeryError
from neuroexapt.models import SmallResNet
from neuroexapt.surgery import MUTATIONS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ROOT / "docs" / "mutations"
SMALLER = ("PruneUnits", "PruneWeights", "RemoveLayer")  # these begin with a network that is larger than needed
EPOCHS_BEFORE, EPOCHS_AFTER, BATCH, PLACES = 6, 6, 32, 3
T_95 = {4: 2.776, 7: 2.365, 9: 2.262}  # two-sided 95 % quantiles of Student's t by degrees of freedom


def train(model: nn.Module, optimizer: AdamW, data: DataSplits, epochs: range, seed: int) -> None:
    """Plain training; the order of the batches depends on seed and epoch alone."""
    for epoch in epochs:
        model.train()
        generator = torch.Generator().manual_seed(seed * 1000 + epoch)
        for chosen in torch.randperm(len(data.train.labels), generator=generator).split(BATCH):
            if len(chosen) > 1:
                optimizer.zero_grad()
                F.cross_entropy(model(pixels(data, data.train.images[chosen])), data.train.labels[chosen]).backward()
                optimizer.step()


def pixels(data: DataSplits, images: Tensor) -> Tensor:
    """Bytes to normalised floats."""
    return data.normalise(images)


def accuracy(model: nn.Module, data: DataSplits) -> tuple[float, float]:
    """Accuracy in % and mean loss on the test split; nothing is decided with them."""
    model.eval()
    with torch.no_grad():
        logits = model(pixels(data, data.test.images))
    correct = (logits.argmax(1) == data.test.labels).double().mean()
    return 100 * float(correct), float(F.cross_entropy(logits, data.test.labels))


def edit(kind: str, surgeon: nx.Surgeon) -> list[nx.Patch]:
    """Applies the kind at up to ``PLACES`` places, spread over the candidates."""
    patches: list[nx.Patch] = []
    places = [m.place for m in surgeon.candidates([kind])]
    wanted = [places[i * len(places) // PLACES] for i in range(min(PLACES, len(places)))]
    for place in dict.fromkeys(wanted):
        found = [m for m in surgeon.candidates([kind]) if m.place == place]
        try:
            patches += [surgeon.apply(found[0])] if found else []
        except SurgeryError as error:
            print(f"  {kind} at {place}: {error}")
    return patches


def one_run(kind: str, seed: int, data: DataSplits) -> dict[str, Any]:
    """One paired run."""
    torch.manual_seed(seed)
    widths = (12, 20) if kind in SMALLER else (6, 10)
    model = SmallResNet(in_channels=1, num_classes=10, widths=widths)
    optimizer = AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    train(model, optimizer, data, range(EPOCHS_BEFORE), seed)
    control, edited = copy.deepcopy((model, optimizer)), copy.deepcopy((model, optimizer))
    probe, labels = pixels(data, data.train.images[:256]), data.train.labels[:256]
    surgeon = nx.Surgeon(edited[0], probe[:32], edited[1], seed, objective=lambda m: F.cross_entropy(m(probe), labels))
    cost = surgeon.graph.cost
    before = accuracy(model, data)
    began = time.perf_counter()
    patches = edit(kind, surgeon)
    seconds = time.perf_counter() - began
    just_after = accuracy(edited[0], data)
    for network, its_optimizer in (control, edited):
        train(network, its_optimizer, data, range(EPOCHS_BEFORE, EPOCHS_BEFORE + EPOCHS_AFTER), seed)
    end, end_control = accuracy(edited[0], data), accuracy(control[0], data)
    return {
        "edits": [patch.description for patch in patches],
        "output_change": max((patch.output_change for patch in patches), default=math.nan),
        "parameters": 100 * sum(patch.parameter_delta for patch in patches) / cost.num_parameters,
        "flops": 100 * sum(patch.flop_delta for patch in patches) / cost.flops_per_sample,
        "seconds_an_edit": seconds / max(len(patches), 1),
        "accuracy_before": before[0],
        "accuracy_just_after": just_after[0],
        "accuracy": end[0],
        "accuracy_control": end_control[0],
        "loss": end[1],
        "loss_control": end_control[1],
    }


def interval(values: list[float]) -> str:
    """Mean and 95 % interval of paired differences."""
    half = T_95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):+.3g} ± {half:.2g}"


def table(runs: list[dict[str, Any]]) -> list[str]:
    """The effect of one kind, as rows of Markdown."""

    def mean(key: str) -> float:
        return statistics.mean(run[key] for run in runs)

    gains = [run["accuracy"] - run["accuracy_control"] for run in runs]
    losses = [run["loss"] - run["loss_control"] for run in runs]
    return [
        "| measured | |",
        "|---|---|",
        f"| edits in the first run | {'; '.join(runs[0]['edits'])} |",
        f"| largest change of the outputs at an edit | {max(run['output_change'] for run in runs):.1e} |",
        f"| parameters, FLOPs of the forward | {mean('parameters'):+.1f} %, {mean('flops'):+.1f} % |",
        f"| test accuracy before, just after the edits | {mean('accuracy_before'):.2f} %, "
        f"{mean('accuracy_just_after'):.2f} % |",
        f"| {EPOCHS_AFTER} epochs later: edited, never edited | {mean('accuracy'):.2f} %, "
        f"{mean('accuracy_control'):.2f} % |",
        f"| difference in accuracy (points), in loss; mean and 95 % interval | {interval(gains)}, {interval(losses)} |",
        f"| seconds an edit, with planning and verification | {mean('seconds_an_edit'):.2f} |",
    ]


def write_page(kind: str, rows: list[str], command: str) -> None:
    """Puts the rows between the markers of the kind's page."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()
    page = PAGES / f"{name}.md"
    start, end = f"<!-- effect: {kind} -->", "<!-- end -->"
    head, _, rest = page.read_text().partition(start)
    _, _, tail = rest.partition(end)
    note = (
        f"`{command}`: a small ResNet on digits, {EPOCHS_BEFORE} epochs, the edits, {EPOCHS_AFTER} epochs more; paired "
        "with the same network never edited."
    )
    page.write_text(head + "\n".join([start, note, "", *rows, end]) + tail)


def main() -> None:
    """Runs what is missing and writes tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8, choices=[n + 1 for n in T_95])
    parser.add_argument("--kinds", nargs="*", default=list(MUTATIONS), choices=list(MUTATIONS))
    parser.add_argument("--out", type=Path, default=Path("runs/mutation_effects.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(nx.DataConfig(source="digits"), seed=0)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    lines = ["# What each kind of edit does", ""]
    for kind in options.kinds:
        for seed in range(options.seeds):
            if not any(row["kind"] == kind and row["seed"] == seed for row in done):
                done.append({"kind": kind, "seed": seed, **one_run(kind, seed, data)})
                with options.out.open("a") as file:
                    file.write(json.dumps(done[-1]) + "\n")
        runs = [row for row in done if row["kind"] == kind and row["seed"] < options.seeds]
        rows = table(runs)
        print(kind, *rows[2:], sep="\n", flush=True)
        write_page(kind, rows, f"python benchmarks/mutation_effects.py --kinds {kind} --seeds {options.seeds}")
        lines += [f"## {kind}", "", *rows, ""]
    (RESULTS / "mutation_effects.md").write_text("\n".join(lines))
    (RESULTS / "mutation_effects.json").write_text(json.dumps({"torch": torch.__version__, "runs": done}, indent=1))


if __name__ == "__main__":
    main()
