"""One edit in the middle of a training run, done once, with everything that the laws ask about."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import SGD, AdamW, Optimizer
from torch.utils.flop_counter import FlopCounterMode

from contracts.networks import batch, build
from contracts.state import fingerprint, raw
from neuroexapt.surgery import MUTATIONS, Lineage, Mutation, Patch, Surgeon, parse, replay

OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "sgd": lambda m: SGD(m.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adamw": lambda m: AdamW(
        [
            {"params": [p for p in m.parameters() if p.dim() > 1]},
            {"params": [p for p in m.parameters() if p.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=1e-2,
        amsgrad=True,
    ),
}
MODES = {"eval": False, "train": True}


def images(count: int, seed: int) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step(model: nn.Module, optimizer: Optimizer, seed: int) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images(4, seed)), torch.arange(4) % 5).backward()
    optimizer.step()


def objective(model: nn.Module) -> Tensor:
    return nn.functional.cross_entropy(model(images(8, 77)), torch.arange(8) % 5)


def trained(network: str, optimizer_name: str = "adamw") -> tuple[nn.Module, Optimizer, Surgeon]:
    """A network in the middle of training, with a full optimizer state."""
    model = build(network)
    optimizer = OPTIMIZERS[optimizer_name](model)
    for seed in range(2):
        step(model, optimizer, seed)
    optimizer.zero_grad()
    return model, optimizer, Surgeon(model, batch(), optimizer, objective=objective)


def outputs(model: nn.Module, inputs: Tensor, training: bool) -> Tensor:
    model = copy.deepcopy(model).train(training)
    with torch.no_grad(), torch.random.fork_rng():
        return model(inputs)


def count(model: nn.Module) -> tuple[int, int]:
    """Parameters, and FLOPs of one forward pass on the batch."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():  # which it counts
        copy.deepcopy(model).eval()(batch())
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops()


@dataclass(frozen=True)
class Memory:
    """What the optimizer holds, by parameter name."""

    state: dict[str, dict[str, Tensor]]
    group_of: dict[str, int]
    is_complete: bool  # it holds exactly the model's parameters, each once

    @staticmethod
    def of(model: nn.Module, optimizer: Optimizer) -> Memory:
        names = {id(p): name for name, p in model.named_parameters()}
        held = [(id(p), index) for index, group in enumerate(optimizer.param_groups) for p in group["params"]]
        return Memory(
            {names[id(p)]: {k: v.clone() for k, v in s.items() if v.dim()} for p, s in optimizer.state.items()},
            {names[key]: index for key, index in held if key in names},
            sorted(key for key, _ in held) == sorted(names),
        )


@dataclass(frozen=True)
class Experiment:
    """Facts of one edit."""

    mutation: Mutation
    patch: Patch
    outputs: list[dict[str, Tensor]]  # before and after, by mode, on data that the surgeon never saw
    counts: list[tuple[int, int]]  # before and after
    memory: list[Memory]  # before and after
    is_planning_pure: bool
    is_reverted: bool
    is_reproducible: bool
    parsed: Mutation
    replayed: list[tuple[list[tuple[str, torch.Size]], Tensor]]  # keys with shapes and outputs: edited, replayed
    reached: dict[str, Tensor]  # entries that got a gradient within two steps
    masks: dict[str, Tensor | None]  # entries that are new


def _signature(model: nn.Module) -> tuple[list[tuple[str, torch.Size]], Tensor]:
    return [(k, v.shape) for k, v in model.state_dict().items()], outputs(model, batch(), False)


def experiment(network: str, mutation: Mutation) -> Experiment:
    """Does it."""
    model, optimizer, surgeon = trained(network)
    seed_model, unseen, first = copy.deepcopy(model), 3 * images(6, 11), fingerprint(model, optimizer)
    surgeon.plan(mutation)
    is_planning_pure = fingerprint(model, optimizer) == first
    seen = [{mode: outputs(model, unseen, training) for mode, training in MODES.items()}]
    counts, memory = [count(model)], [Memory.of(model, optimizer)]
    patch = surgeon.apply(mutation)
    seen.append({mode: outputs(model, unseen, training) for mode, training in MODES.items()})
    counts.append(count(model))
    memory.append(Memory.of(model, optimizer))
    edited, bits = _signature(model), [raw(t) for t in model.state_dict().values()]
    record = json.loads(json.dumps(surgeon.lineage.to_json()))
    surgeon.revert(patch)
    is_reverted = fingerprint(model, optimizer) == first and surgeon.lineage == Lineage()
    replay(seed_model, Lineage.from_json(record), batch(), objective=objective)
    surgeon.apply(mutation)
    is_reproducible = [raw(t) for t in model.state_dict().values()] == bits
    return Experiment(
        mutation,
        patch,
        seen,
        counts,
        memory,
        is_planning_pure,
        is_reverted,
        is_reproducible,
        parse(MUTATIONS, json.loads(json.dumps(mutation.to_json()))),
        [edited, _signature(seed_model)],
        *_gradients(model, optimizer, patch),
    )


def _gradients(model: nn.Module, optimizer: Optimizer, patch: Patch) -> Any:
    masks = patch.new_entries(model)
    reached = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in model.named_parameters() if name in masks}
    for seed in (21, 22):
        step(model, optimizer, seed)
        for name, parameter in model.named_parameters():
            if name in masks and parameter.grad is not None:
                reached[name] |= parameter.grad != 0
    return reached, masks
