"""What an analysis takes: memory beyond the same forward and backward pass, and time beside one training step.

24 convolutions whose activations are [128, 512, 4, 4], the shape at which a full correlation matrix of flattened
features is 8192 x 8192 for each layer; one layer with an activation of [256, 4096, 8, 8]; and, for comparison, that
full matrix for one layer. Each is measured in a process of its own by the allocator's bytes in use
(``psutil.heap_info``), read every 0.2 ms. The result goes to ``benchmarks/results/evidence_memory.{json,md}``.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroexapt.analysis import measure_evidence
from neuroexapt.config import EvidenceConfig
from neuroexapt.graph import trace

RESULTS = Path(__file__).parent / "results"
MIB = float(1 << 20)
REPEATS = 5


def deep() -> tuple[nn.Module, Tensor]:
    """24 convolutions with activations of [128, 512, 4, 4]."""
    blocks = [
        m for _ in range(24) for m in (nn.Conv2d(512, 512, 3, padding=1, bias=False), nn.BatchNorm2d(512), nn.ReLU())
    ]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)), torch.randn(
        128, 512, 4, 4
    )


def wide() -> tuple[nn.Module, Tensor]:
    """One activation of [256, 4096, 8, 8]."""
    layers = (nn.Conv2d(3, 4096, 1), nn.ReLU(), nn.Conv2d(4096, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(16, 10)), torch.randn(256, 3, 8, 8)


NETWORKS = {"24 x [128, 512, 4, 4]": deep, "[256, 4096, 8, 8]": wide}


class HeapPeak:
    """The most bytes that the allocator had in use inside, above those at the start."""

    def __enter__(self) -> HeapPeak:
        gc.collect()
        self._start = self._peak = self._now()
        self._is_over = False
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _now(self) -> int:
        heap = psutil.heap_info()
        return int(heap.heap_used + heap.mmap_used)

    def _watch(self) -> None:
        while not self._is_over:
            self._peak = max(self._peak, self._now())
            time.sleep(2e-4)

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()

    @property
    def mib(self) -> float:
        """The difference in MiB."""
        return (self._peak - self._start) / MIB


def timed(function: Callable[[], object]) -> float:
    """Returns seconds."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def measured(name: str, seed: int) -> dict[str, object]:
    """Measures one network."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model, inputs = NETWORKS[name]()
    targets, optimizer = torch.randint(10, (len(inputs),)), torch.optim.SGD(model.parameters(), lr=0.01)
    graph, config = trace(model, inputs[:16]), EvidenceConfig(num_samples=len(inputs))

    def step() -> None:
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    def passes() -> None:
        """The forward and backward pass that the analysis makes, without it."""
        model.eval()
        token = torch.zeros((), requires_grad=True)
        torch.autograd.grad(F.cross_entropy(model(inputs + token), targets), token)

    def analysis() -> object:
        return measure_evidence(model, [(inputs, targets)], config=config, graph=graph)

    evidence = measure_evidence(model, [(inputs, targets)], config=config, graph=graph)
    step()
    passes()
    optimizer.zero_grad()
    with HeapPeak() as alone:
        passes()
    with HeapPeak() as together:
        analysis()
    seconds = [(timed(step), timed(passes), timed(analysis)) for _ in range(REPEATS)]
    best = [min(column) for column in zip(*seconds, strict=True)]
    return {
        "network": name,
        "num_layers": len(evidence.layers),
        "num_values": sum(len(layer.values) for layer in evidence.layers),
        "num_samples": evidence.num_samples,
        "extra_mib": together.mib - alone.mib,
        "stated_mib": evidence.num_bytes / MIB,
        "budget_mib_per_layer": config.max_bytes_per_layer / MIB,
        "step_seconds": best[0],
        "passes_seconds": best[1],
        "analysis_seconds": best[2],
        "missing": {layer.path: dict(layer.missing) for layer in evidence.layers if layer.missing},
    }


def naive(seed: int) -> dict[str, object]:
    """One full correlation matrix of flattened features; it would be made for each of 24 layers."""
    torch.manual_seed(seed)
    features = torch.randn(128, 8192)
    with HeapPeak() as peak:
        seconds = timed(lambda: torch.corrcoef(features.T).abs().mean().item())
    return {"mib_per_layer": peak.mib, "seconds_per_layer": seconds}


def table(rows: list[dict[str, object]], full: dict[str, object], command: str) -> str:
    """Returns the results in Markdown."""
    lines = [
        "# Memory and time of an analysis",
        "",
        f"`{command}`, torch {torch.__version__}, one thread; best of {REPEATS}.",
        "",
        "| network | samples | values | extra MiB | stated MiB | step s | own passes s | analysis s | over a step |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['network']} | {r['num_samples']} | {r['num_values']} | {r['extra_mib']:.1f} | {r['stated_mib']:.1f} "
            f"| {r['step_seconds']:.2f} | {r['passes_seconds']:.2f} | {r['analysis_seconds']:.2f} "
            f"| {r['analysis_seconds'] / r['step_seconds']:.2f} |"  # type: ignore[operator]
        )
    lines += [
        "",
        "Extra: peak of the analysis beyond the peak of the same forward and backward pass without it. The analysis "
        "includes its own passes.",
        "",
        f"The full correlation matrix of one layer's 8,192 flattened features: {full['mib_per_layer']:.0f} MiB and "
        f"{full['seconds_per_layer']:.1f} s; kept for 24 layers at once, the matrices alone are 6,144 MiB.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[*NETWORKS, "naive"], help="measure one, print it as JSON")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(naive(options.seed) if options.only == "naive" else measured(options.only, options.seed)))
        sys.exit(0)
    found = []
    for name in (*NETWORKS, "naive"):
        arguments = [sys.executable, __file__, "--seed", str(options.seed), "--only", name]
        found.append(json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout))
        print(found[-1])
    command = f"python benchmarks/evidence_memory.py --seed {options.seed}"
    record = {"command": command, "torch": torch.__version__, "networks": found[:-1], "full_matrix": found[-1]}
    (RESULTS / "evidence_memory.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "evidence_memory.md").write_text(table(found[:-1], found[-1], command))
