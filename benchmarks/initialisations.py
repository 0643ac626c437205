"""How new units begin: an MLP on handwritten digits that grows from 4-4 to 16-16 hidden units, by each initialisation.

Results go to ``benchmarks/results/initialisations.{json,md}``. One thread, about a minute.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import neuroexapt as nx
from neuroexapt.data import LabelledImages, load_data
from neuroexapt.errors import SurgeryError

RESULTS = Path(__file__).parent / "results"
INITS = ("zero_fan_out", "pair", "informed", "copy", "gradmax")
ACTIVATIONS: dict[str, type[nn.Module]] = {"SELU": nn.SELU, "ReLU": nn.ReLU}
GROWN_AT, STEPS, BATCH, WIDTH = 60, 400, 64, 16


def run(init: str, activation: str, seed: int, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Trains, grows both hidden layers after ``GROWN_AT`` steps, trains on; returns the test accuracy in percent.

    Raises:
        SurgeryError: The initialisation is refused here.
    """
    torch.manual_seed(seed)
    act = ACTIVATIONS[activation]
    model = nn.Sequential(nn.Linear(64, 4), act(), nn.Linear(4, 4), act(), nn.Linear(4, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    x, y = train
    for step in range(STEPS):
        if step == GROWN_AT:
            optimizer.zero_grad()
            surgeon = nx.Surgeon(
                model, x[:32], optimizer, seed, objective=lambda m: F.cross_entropy(m(x[:512]), y[:512])
            )
            for axis in ("0", "2"):
                surgeon.apply(nx.Widen(axis=axis, to=WIDTH, init=init))
        rows = torch.randint(len(y), (BATCH,))
        loss = F.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return 100 * float((model(test[0]).argmax(1) == test[1]).double().mean())


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over the seeds."""
    lines = ["| activation | " + " | ".join(f"`{init}`" for init in INITS) + " |", "|---" * (len(INITS) + 1) + "|"]
    for activation in ACTIVATIONS:
        cells = []
        for init in INITS:
            found = [r["accuracy"] for r in rows if (r["activation"], r["init"]) == (activation, init)]
            is_refused = any(value is None for value in found)
            cells.append("refused" if is_refused else f"{statistics.mean(found):.1f} ± {statistics.stdev(found):.1f}")
        lines.append(f"| {activation} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs all and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(nx.DataConfig(source="digits"), seed=0)

    def flat(part: LabelledImages) -> tuple[Tensor, Tensor]:
        return data.normalise(part.images).flatten(1), part.labels

    rows: list[dict[str, Any]] = []
    for activation in ACTIVATIONS:
        for init in INITS:
            for seed in range(options.seeds):
                row: dict[str, Any] = {"activation": activation, "init": init, "seed": seed, "accuracy": None}
                try:
                    row["accuracy"] = run(init, activation, seed, flat(data.train), flat(data.test))
                except SurgeryError as error:
                    row["refusal"] = str(error)
                rows.append(row)
    print(table(rows))
    command = f"python benchmarks/initialisations.py --seeds {options.seeds}"
    facts = {"command": command, "torch": torch.__version__, "runs": rows}
    (RESULTS / "initialisations.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "initialisations.md").write_text(f"`{command}`\n\n{table(rows)}", encoding="utf-8")


if __name__ == "__main__":
    main()
