"""A random sequence of edits on one model, and everything that must hold after it.

Edits of all kinds are drawn one after another, kind first, so that rare kinds count as much as frequent ones; where
only exact ones are wanted, each preserves the function in eval mode, or is taken back and another is drawn. Then: the
product of all changes, the function on a batch that was never seen, reverting to the first bit, replaying from JSON on
the seed model, training on.
"""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils._pytree import tree_leaves

import neuroexapt as nx
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ExampleInputs, is_inexact, relative_change
from neuroexapt.surgery import MUTATIONS, Lineage

MAX_GROWTH = 8.0  # times the seed's parameters; larger candidates are left out
MAX_DRAWS = 40  # for one edit


@dataclass
class Sequence:
    """What happened, and what was measured after it."""

    edits: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    product: float = 1.0  # of 1 + change, over the edits, in the modes in which each preserves the function
    unseen_change: float = float("nan")
    growth: float = 1.0  # of the parameters
    is_reverted: bool = False  # to the first bit, model and optimizer
    is_replayed: bool = False  # same keys, shapes, outputs
    losses: list[float] = field(default_factory=list)  # while training on, after the replay

    @property
    def is_sound(self) -> bool:
        """Whether all of it held."""
        finite = all(loss == loss and abs(loss) != float("inf") for loss in self.losses)
        return self.is_reverted and self.is_replayed and finite and abs(self.product - 1) <= 1e-4


def run_sequence(
    model: nn.Module, inputs: Any, unseen: Any, *, length: int, seed: int, only_exact: bool = True
) -> Sequence:
    """Edits the model ``length`` times and checks everything; the model is as it was afterwards.

    Args:
        model: Any module.
        inputs: What edits are verified on.
        unseen: Other inputs, on which the whole sequence is checked.
        length: Number of edits.
        seed: Of the draws and of new weights.
        only_exact: Whether edits that declare a change in eval mode (pruning, bypassing) are drawn again.
    """
    result, seed_model = Sequence(), copy.deepcopy(model)
    optimizer = SGD(model.parameters(), lr=1e-4, momentum=0.9)
    train(model, optimizer, inputs, 1)
    seed_model.load_state_dict(model.state_dict())
    optimizer.zero_grad()
    first, before = state(model, optimizer), run(model, unseen)
    surgeon = nx.Surgeon(model, inputs, optimizer, seed, objective=lambda m: loss_of(m, inputs))
    limit = MAX_GROWTH * surgeon.graph.cost.num_parameters
    rng, patches = random.Random(seed), []
    while len(patches) < length:
        patch = draw(surgeon, rng, only_exact, limit, result)
        if patch is None:
            break
        patches.append(patch)
        result.edits.append(patch.description)
        result.kinds[type(patch.mutation).__name__] += 1
        kept = [patch.changes[mode] for mode in patch.changes.keys() - patch.declared]
        result.product *= 1 + max(kept, default=0.0)
    result.unseen_change = relative_change(before, run(model, unseen))
    result.growth = sum(p.numel() for p in model.parameters()) / sum(p.numel() for p in seed_model.parameters())
    grown, keys, record = run(model, unseen), shapes(model), json.loads(json.dumps(surgeon.lineage.to_json()))
    for patch in reversed(patches):
        surgeon.revert(patch)
    result.is_reverted = state(model, optimizer) == first
    nx.replay(seed_model, Lineage.from_json(record), inputs, objective=lambda m: loss_of(m, inputs))
    again = run(seed_model, unseen)
    result.is_replayed = shapes(seed_model) == keys and all(
        torch.equal(a, b) for a, b in zip(grown, again, strict=True)
    )
    result.losses = train(seed_model, SGD(seed_model.parameters(), lr=1e-4, momentum=0.9), inputs, 3)
    return result


def draw(surgeon: nx.Surgeon, rng: random.Random, only_exact: bool, limit: float, result: Sequence) -> nx.Patch | None:
    """Applies one random edit, of a random kind."""
    for _ in range(MAX_DRAWS):
        kind = rng.choice(list(MUTATIONS))
        found = surgeon.candidates([kind], growth=1.25)
        if not found:
            continue
        mutation = rng.choice(found)
        try:
            patch = surgeon.apply(mutation)
        except SurgeryError as error:
            result.refused[f"{kind}: {str(error)[:160]}"] += 1
            continue
        if not (only_exact and "eval" in patch.declared) and surgeon.graph.cost.num_parameters <= limit:
            return patch
        surgeon.revert(patch)
    return None


def run(model: nn.Module, inputs: Any) -> list[Tensor]:
    """The model's floating-point outputs in eval mode."""
    twin = copy.deepcopy(model).eval()
    with torch.no_grad():
        outputs = ExampleInputs.of(inputs).call(twin)
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and is_inexact(leaf)]


def loss_of(model: nn.Module, inputs: Any) -> Tensor:
    """Some loss of all outputs."""
    leaves = tree_leaves(ExampleInputs.of(inputs).call(model))
    return torch.stack([x.square().mean() for x in leaves if isinstance(x, Tensor) and is_inexact(x)]).sum()


def train(model: nn.Module, optimizer: SGD, inputs: Any, steps: int) -> list[float]:
    """A few steps in train mode; returns the losses."""
    model.train()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, inputs)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def shapes(model: nn.Module) -> list[tuple[str, torch.Size]]:
    """Keys and shapes of the state dict, in order."""
    return [(key, value.shape) for key, value in model.state_dict().items()]


def state(model: nn.Module, optimizer: SGD) -> list[Any]:
    """Bytes of all tensors, classes of all modules, and the optimizer's memory."""
    tensors = [(key, value.clone().contiguous().numpy().tobytes()) for key, value in model.state_dict().items()]
    moments = [
        (index, key, value.clone().contiguous().numpy().tobytes() if isinstance(value, Tensor) else value)
        for index, entries in optimizer.state_dict()["state"].items()
        for key, value in entries.items()
    ]
    return [tensors, moments, [(path, type(module)) for path, module in model.named_modules()]]
