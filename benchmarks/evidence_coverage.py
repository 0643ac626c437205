"""How often the interval of every value of every estimator holds the true value, on families whose truth is known.

Rows are drawn from each family of ``tests/contracts/families.py``, 1,000 times, at several numbers of rows and widths.
What depends on the correlation matrix alone is compared with its exact value; everything else with the estimator's own
value from very many rows. One thread; what is in the results already is not measured again unless ``--again``.

``python benchmarks/evidence_coverage.py --draws 1000``
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from contracts.families import FAMILIES, NUM_CLASSES, draw, fixed
from neuroexapt.analysis.estimators import ESTIMATORS, Estimator

RESULTS = Path(__file__).parent / "results" / "evidence_coverage.json"
SIZES = ((24, 64), (24, 128), (24, 256), (256, 64), (256, 128))  # units, rows
WANTED = 0.94
UNLIMITED, REPEATED = 1 << 15, 4  # rows that stand for all there are, drawn so often
ENOUGH = 1 << 34
DUPLICATE = 0.95
GRADIENT_SQUARE, GRADIENT_VARIANCE = 40 * 0.3**2, 40.0  # of the families' gradients of the weight
WEIGHTS = 120


def population_correlation(family: str, width: int) -> Tensor:
    """The exact correlation matrix of the units that vary: float64 ``[d, d]``."""
    if family == "low_rank":
        loadings = fixed(3, width)
        variances = torch.tensor([1 + (NUM_CLASSES**2 - 1) / 12, 1.0, 1.0], dtype=torch.float64)
        covariance = loadings.T @ (variances[:, None] * loadings) + 0.01 * torch.eye(width, dtype=torch.float64)
        deviation = covariance.diagonal().sqrt()
        return covariance / deviation / deviation[:, None]
    if family == "duplicated":
        return torch.eye(width // 2, dtype=torch.float64).repeat(2, 2)
    constant = {"dead": 3, "constant": 4}.get(family)
    return torch.eye(width - (math.ceil(width / constant) if constant else 0), dtype=torch.float64)


def exact_values(family: str, width: int) -> dict[str, float]:
    """What follows from the correlation matrix, and from counting."""
    r = population_correlation(family, width)
    d = len(r)
    others = (r - torch.eye(d, dtype=r.dtype)).abs()
    p = torch.linalg.eigvalsh(r).clamp(min=0) / d
    effective = math.exp(-float(torch.xlogy(p, p).sum()))
    participation = 1 / float(p.square().sum())
    has_double = (others > 1 - 1e-9).any(1)
    unexplained = torch.where(has_double, 0.0, 1 / torch.linalg.pinv(r).diagonal())
    return {
        "mean_absolute_correlation": float(others.sum()) / (d * (d - 1)),
        "mean_square_correlation": float(others.square().sum()) / (d * (d - 1)),
        "effective_rank": effective,
        "effective_rank_fraction": effective / d,
        "participation_ratio": participation,
        "participation_fraction": participation / d,
        "redundancy": 1 - effective / d,
        "near_duplicate_fraction": float((others > DUPLICATE).any(1).double().mean()),
        "predictability": 1 - float(unexplained.mean()),
        "dead_fraction": math.ceil(width / 3) / width if family == "dead" else 0.0,
        "constant_fraction": math.ceil(width / 4) / width if family == "constant" else 0.0,
        "zero_fraction": 0.5 + 0.5 * math.ceil(width / 3) / width if family == "dead" else 0.0,
        "saturated_fraction": 0.5 if family == "dead" else 0.0,
        "gradient_square": GRADIENT_SQUARE,
        "gradient_rms": math.sqrt(GRADIENT_SQUARE / WEIGHTS),
        "gradient_variance": GRADIENT_VARIANCE,
        "noise_scale": GRADIENT_VARIANCE / GRADIENT_SQUARE,
        "gradient_agreement": GRADIENT_SQUARE / (GRADIENT_SQUARE + GRADIENT_VARIANCE),
    }


def truth(estimator: Estimator, family: str, width: int) -> dict[str, float]:
    """The value that intervals are to hold, for each of an estimator's."""
    exact = exact_values(family, width)
    if estimator.values.keys() <= exact.keys():
        return {name: exact[name] for name in estimator.values}
    found = [estimator.measure("truth", draw(family, UNLIMITED, 10**6 + i, width), ENOUGH) for i in range(REPEATED)]
    return {name: exact.get(name, fmean(evidence[name].value for evidence in found)) for name in found[0]}


def cell(estimator: Estimator, family: str, width: int, num_samples: int, draws: int) -> dict[str, Any]:
    """Coverage, mean estimate and mean width of the interval of each value; at one family and size."""
    expected = truth(estimator, family, width)
    held = dict.fromkeys(expected, 0)
    values: dict[str, list[float]] = {name: [] for name in expected}
    reaches: dict[str, list[float]] = {name: [] for name in expected}
    for seed in range(draws):
        found = estimator.measure("layer", draw(family, num_samples, seed, width), ENOUGH)
        for name in expected.keys() & found.keys():
            evidence = found[name]
            rounding = 1e-6 * max(abs(expected[name]), 1)  # of float32
            held[name] += evidence.low - rounding <= expected[name] <= evidence.high + rounding
            values[name].append(evidence.value)
            reaches[name].append(evidence.high - evidence.low)
    return {
        "draws": draws,
        "values": {
            name: {
                "truth": round(expected[name], 8),
                "held": held[name] / draws,
                "mean": round(fmean(values[name] or [0.0]), 8),
                "mean_interval": round(fmean(reaches[name] or [0.0]), 8),
            }
            for name in expected
        },
    }


def table(results: dict[str, Any]) -> list[str]:
    """The least coverage of each value of each estimator over all families and sizes, and where that was."""
    rows: dict[tuple[str, str], list[tuple[float, str, str]]] = {}
    for key, found in results.items():
        name, family, width, num_samples = key.split("/")
        for value, facts in found["values"].items():
            where = f"{family}, d = {width}, n = {num_samples}"
            measured = f"{facts['truth']:.3g} / {facts['mean']:.3g} / {facts['mean_interval']:.2g}"
            rows.setdefault((name, value), []).append((facts["held"], where, measured))
    draws = sorted({found["draws"] for found in results.values()})
    cells = [held for found in rows.values() for held, _, _ in found]
    lines = [
        f"Made by `python benchmarks/evidence_coverage.py --draws {max(draws)}`, torch {torch.__version__}.",
        "",
        f"{len(cells)} cells (value x family x size) of {', '.join(map(str, draws))} draws each: in "
        f"{sum(held >= WANTED for held in cells)} the interval holds the truth in at least {WANTED:.0%} of the draws.",
        "",
        "| estimator | value | cells | least held | there | truth / mean estimate / mean interval there |",
        "|---|---|---|---|---|---|",
    ]
    for (name, value), found in rows.items():
        held, where, measured = min(found)
        lines.append(f"| {name} | {value} | {len(found)} | {held:.1%} | {where} | {measured} |")
    return lines


def main() -> None:
    """Measures what is missing and writes table and numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--again", nargs="*", default=[], help="estimators to measure anew")
    parser.add_argument("--estimators", nargs="*", default=list(ESTIMATORS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    results = {key: found for key, found in results.items() if key.split("/")[0] not in arguments.again}
    for width, num_samples in SIZES:
        for family in FAMILIES:
            for name in arguments.estimators:
                key = f"{name}/{family}/{width}/{num_samples}"
                if results.get(key, {}).get("draws", 0) >= arguments.draws:
                    continue
                results[key] = cell(ESTIMATORS[name], family, width, num_samples, arguments.draws)
                for value, facts in results[key]["values"].items():
                    if facts["held"] < WANTED:
                        print(key, value, facts, flush=True)
                arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    lines = table(results)
    print("\n".join(lines))
    arguments.out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
