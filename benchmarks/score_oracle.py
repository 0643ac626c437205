"""Does a growth score know which edit pays? Every candidate is tried from one trained state, against no edit at all.

Networks on handwritten digits are trained for a few epochs. Then every growing edit that they admit is scored, within
the default share of the FLOPs so far and without that limit, and each is applied in turn and trained on with the same
batches; its gain is the validation loss of the same epochs without an edit minus its own. Results go to
``benchmarks/results/score_oracle.{json,md}``. Finished rows are not repeated. One thread; about fifteen minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW

import neuroexapt as nx
from neuroexapt.analysis.estimators.base import Value
from neuroexapt.analysis.scores import SCORES, Junction, JunctionShape, Score
from neuroexapt.analysis.scores.products import squared_mean, squared_mean_of
from neuroexapt.analysis.scores.spans import spanned_already, without
from neuroexapt.data import DataSplits, load_data
from neuroexapt.errors import SurgeryError
from neuroexapt.models import MLP, SmallResNet
from neuroexapt.morphogenesis import Snapshot
from neuroexapt.morphogenesis.assay import Assay, assay
from neuroexapt.morphogenesis.scoring import Effort, score_all

RESULTS = Path(__file__).parent / "results"
KINDS = ("Widen", "InsertLayer", "AddBranch", "AddResidual", "AddAttention", "AddPooling", "SplitUnits")
MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: MLP(in_features=64, num_classes=10, hidden=(6, 6, 6, 6)),
    "resnet": lambda: SmallResNet(in_channels=1, num_classes=10, widths=(4, 6, 8)),
}
EPOCHS_BEFORE, EPOCHS_AFTER, BATCH, GROWTH = 6, 4, 64, 2.0
SHARE, SAMPLES = 0.02, 256  # the defaults of the configuration
NO_LIMIT, ALL_SAMPLES = 10**11, 1024
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
REPEAT = 500  # added to the seed of the order of batches where everything is tried once more


class PlainResidual(Score):
    """The residual score in the plain metric: the squared gradient at the zero entries after projecting."""

    name = "plain_residual"
    view = "reader"

    def flops(self, shape: JunctionShape) -> int:
        """As for ``residual``, which does more."""
        return SCORES["residual"].flops(shape)

    def workspace_bytes(self, shape: JunctionShape) -> int:
        """As for ``residual``."""
        return SCORES["residual"].workspace_bytes(shape)

    def estimate(self, junction: Junction) -> Value:
        """``|E r' R|^2`` with the new columns and the gradient projected out of the old columns."""
        spanned = spanned_already(junction.old.double())
        new = without(junction.new.double().flatten(0, 1), spanned).view(junction.new.shape) * junction.weight
        asked = without(junction.gradients.double().flatten(0, 1), spanned).view(junction.gradients.shape)
        return squared_mean_of((new * asked).sum(1)) if junction.is_diagonal else squared_mean(new, asked)


DERIVED = [f"residual {form} {limit}" for limit in ("cap", "all") for form in ("per FLOP", "lower end")]
FORMS: dict[str, Score] = {**SCORES, "plain_residual": PlainResidual()}


def train(model: nn.Module, optimizer: AdamW, data: DataSplits, epochs: range, seed: int) -> None:
    """Plain training; the order of the batches depends on seed and epoch alone."""
    model.train()
    for epoch in epochs:
        for x, y in shuffled(data, seed * 1000 + epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()


def shuffled(data: DataSplits, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The training data in an order that depends on the seed."""
    order = torch.randperm(len(data.train.labels), generator=torch.Generator().manual_seed(seed))
    for chosen in order.split(BATCH):
        if len(chosen) > 1:
            yield data.normalise(data.train.images[chosen]), data.train.labels[chosen]


def validation_loss(model: nn.Module, data: DataSplits) -> float:
    """Mean loss on the validation split."""
    model.eval()
    with torch.no_grad():
        logits = model(data.normalise(data.validation.images))
    return float(F.cross_entropy(logits, data.validation.labels))


def scored(surgeon: nx.Surgeon, found: list[Assay], data: DataSplits, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Every form of score of every candidate, within the default limit and without one."""
    trained = 3 * EPOCHS_BEFORE * len(data.train.labels) * surgeon.graph.cost.flops_per_sample
    efforts = {"cap": Effort(int(SHARE * trained), SAMPLES, 16 << 20), "all": Effort(NO_LIMIT, ALL_SAMPLES, 256 << 20)}
    rows: dict[str, list[dict[str, Any]]] = {}
    for limit, effort in efforts.items():
        for name, score in FORMS.items():
            got = score_all(surgeon.graph, found, shuffled(data, 77 + seed), F.cross_entropy, score, effort)
            rows[f"{name} {limit}"] = [
                {
                    "value": got.evidence[i].value,
                    "spread": got.evidence[i].spread,
                    "samples": got.evidence[i].num_samples,
                }
                if i in got.evidence
                else {"reason": got.reasons.get(i, got.remark)}
                for i in range(len(found))
            ] + [{"flops": got.flops, "share": got.flops / trained, "twins": got.num_twins, "remark": got.remark}]
    return rows


def one_seed(
    kind: str, seed: int, data: DataSplits, done: dict[str, Any], save: Callable[[dict[str, Any]], None], again: bool
) -> None:
    """Trains, scores and tries every candidate that is not in ``done`` yet."""
    torch.manual_seed(seed)
    model = MODELS[kind]()
    optimizer = AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    train(model, optimizer, data, range(EPOCHS_BEFORE), seed)
    optimizer.zero_grad()
    surgeon = nx.Surgeon(model, data.normalise(data.train.images[:16]), optimizer, seed)
    found = [assay(surgeon, mutation) for mutation in surgeon.candidates(KINDS, growth=GROWTH)]
    start, after = Snapshot(model, optimizer, ()), range(EPOCHS_BEFORE, EPOCHS_BEFORE + EPOCHS_AFTER)
    if "scores" not in done:
        save({"scores": scored(surgeon, found, data, seed)})
    for order, mark in ((seed, ""), *(((seed + REPEAT, " again"),) if again else ())):
        if f"control{mark}" not in done:
            start.restore()
            train(model, optimizer, data, after, order)
            save({f"control{mark}": validation_loss(model, data)})
        for index, candidate in enumerate(found):
            if f"{index}{mark}" in done:
                continue
            start.restore()
            row: dict[str, Any] = {"kind": type(candidate.mutation).__name__, "what": candidate.description}
            row["flops"] = candidate.flop_delta
            try:
                patch = surgeon.apply(candidate.mutation)
            except SurgeryError as error:
                save({f"{index}{mark}": {**row, "refused": str(error)}})
                continue
            train(model, optimizer, data, after, order)
            save({f"{index}{mark}": {**row, "loss": validation_loss(model, data)}})
            optimizer.zero_grad()
            surgeon.revert(patch)


def ranks(values: list[float]) -> list[float]:
    """Mean ranks, ties shared."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    found = [0.0] * len(values)
    for i in order:
        equal = [k for k, j in enumerate(order) if values[j] == values[i]]
        found[i] = sum(equal) / len(equal)
    return found


def spearman(one: list[float], other: list[float]) -> float:
    """Rank correlation; NaN where one is constant."""
    if len(one) < 3 or len(set(one)) < 2 or len(set(other)) < 2:
        return math.nan
    return statistics.correlation(ranks(one), ranks(other))


def with_interval(values: list[float]) -> str:
    """Mean over seeds and its 95 % interval."""
    kept = [v for v in values if not math.isnan(v)]
    if len(kept) < 2:
        return "-"
    half = T_95.get(len(kept) - 1, 2.776) * statistics.stdev(kept) / math.sqrt(len(kept))
    return f"{statistics.mean(kept):+.2f} ± {half:.2f}"


def summary(kind: str, seeds: list[dict[str, Any]]) -> list[str]:
    """The table of one network."""
    lines = [
        "| score | samples read, share of FLOPs | rank correlation, all kinds | within Widen | within all kinds "
        "| gain of its first choice, % of the control's loss | less that of uniform's |",
        "|---|---|---|---|---|---|---|",
    ]
    names = [*seeds[0]["scores"], *DERIVED, "uniform order"]
    for name in names:
        columns: list[list[float]] = [[], [], [], [], []]
        read = share = math.nan
        for run in seeds:
            tried = [(int(k), row) for k, row in run.items() if k.isdigit() and "loss" in row]
            gains = [run["control"] - row["loss"] for _, row in tried]
            scores, read, share = values_of(name, run, tried)
            kinds = [row["kind"] for _, row in tried]
            widens = [i for i, k in enumerate(kinds) if k == "Widen"]
            columns[0].append(spearman(scores, gains))
            columns[1].append(spearman([scores[i] for i in widens], [gains[i] for i in widens]))
            columns[2].append(spearman(centred(ranks(scores), kinds), centred(ranks(gains), kinds)))
            first = max(range(len(scores)), key=lambda i: (scores[i], -i))
            columns[3].append(100 * gains[first] / run["control"])
            columns[4].append(100 * (gains[first] - gains[0]) / run["control"])
        what = "-" if math.isnan(read) else f"{read:.0f}, {100 * share:.2f} %"
        lines.append(f"| {name} | {what} | " + " | ".join(with_interval(c) for c in columns) + " |")
    return [f"## {kind}", "", *lines, "", *extremes(seeds), ""]


def centred(values: list[float], kinds: list[str]) -> list[float]:
    """Less the mean of their kind."""
    means = {k: statistics.mean(v for v, other in zip(values, kinds, strict=True) if other == k) for k in set(kinds)}
    return [v - means[k] for v, k in zip(values, kinds, strict=True)]


def values_of(name: str, run: dict[str, Any], tried: list[tuple[int, Any]]) -> tuple[list[float], float, float]:
    """The scores of the candidates that were tried, what is not defined as 0, with samples read and share of FLOPs."""
    if name == "uniform order":
        return [-float(i) for i, _ in tried], math.nan, math.nan
    base = f"residual {name.rpartition(' ')[2]}" if name in DERIVED else name
    rows = run["scores"][base]
    read = max((r.get("samples", 0) for r in rows), default=0)
    found = [rows[i].get("value", 0.0) for i, _ in tried]
    if "per FLOP" in name:
        found = [max(value, 0.0) / max(row["flops"], 1) for value, (_, row) in zip(found, tried, strict=True)]
    elif "lower end" in name:
        found = [value - 2 * rows[i].get("spread", 0.0) for value, (i, _) in zip(found, tried, strict=True)]
    return found, read, rows[-1]["share"]


def extremes(seeds: list[dict[str, Any]]) -> list[str]:
    """What the best candidate, the mean candidate and each kind gain."""
    best, mean, kinds = [], [], {}
    for run in seeds:
        gains = [
            (row["kind"], 100 * (1 - row["loss"] / run["control"]))
            for k, row in run.items()
            if k.isdigit() and "loss" in row
        ]
        best.append(max(gain for _, gain in gains))
        mean.append(statistics.mean(gain for _, gain in gains))
        for kind, gain in gains:
            kinds.setdefault(kind, []).append(gain)
    by_kind = "; ".join(f"{kind} {statistics.mean(g):+.1f} ({len(g)})" for kind, g in kinds.items())
    ceiling = [repeatability(run) for run in seeds if "control again" in run]
    lines = [
        f"Best candidate: {with_interval(best)} %; mean candidate (a choice at random): {with_interval(mean)} %.",
        f"Mean gain in % by kind, with the number tried: {by_kind}.",
    ]
    if ceiling:
        measured = ", ".join(f"{value:+.2f}" for value in ceiling)
        lines.append(
            f"Rank correlation of the measured gains with those in another order of the batches, by seed: {measured}; "
            "a score that knew every gain would reach about its square root."
        )
    return lines


def repeatability(run: dict[str, Any]) -> float:
    """Rank correlation of the gains of the same edits with two orders of the batches."""
    both = [k for k, row in run.items() if k.isdigit() and "loss" in row and "loss" in run.get(f"{k} again", {})]
    return spearman(
        [run["control"] - run[k]["loss"] for k in both],
        [run["control again"] - run[f"{k} again"]["loss"] for k in both],
    )


def main() -> None:
    """Runs what is missing and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeated", type=int, default=2, help="seeds whose trials are made again in another order")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--out", type=Path, default=Path("runs/score_oracle.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(nx.DataConfig(source="digits"), seed=0)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    runs: dict[tuple[str, int], dict[str, Any]] = {}
    for line in options.out.read_text().splitlines() if options.out.exists() else []:
        record = json.loads(line)
        runs.setdefault((record["model"], record["seed"]), {}).update(record["row"])
    lines = [f"`python benchmarks/score_oracle.py --seeds {options.seeds}`: {(__doc__ or '').splitlines()[0]}", ""]
    for kind in options.models:
        for seed in range(options.seeds):
            run = runs.setdefault((kind, seed), {})

            def save(row: dict[str, Any], kind: str = kind, seed: int = seed, run: dict[str, Any] = run) -> None:
                run.update(row)
                with options.out.open("a") as file:
                    file.write(json.dumps({"model": kind, "seed": seed, "row": row}) + "\n")

            one_seed(kind, seed, data, run, save, seed < options.repeated)
            print(kind, seed, flush=True)
        lines += summary(kind, [runs[kind, seed] for seed in range(options.seeds)])
        print("\n".join(lines), flush=True)
        (RESULTS / "score_oracle.md").write_text("\n".join(lines), encoding="utf-8")
    facts = {"torch": torch.__version__, "runs": [{"model": k, "seed": s, **run} for (k, s), run in runs.items()]}
    (RESULTS / "score_oracle.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
