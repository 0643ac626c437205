"""Edits in the middle of training: the optimizer moves along, new entries learn, and the lineage can be replayed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

import neuroexapt as nx
from neuroexapt.errors import NeuroExaptError
from survey import observe
from survey.edits import Bench, Outcome, tried
from survey.model_list import GIANT, build

_STEPS_TO_LEARN = 2  # silent units are reached through weights that are zero until the first step


def edits_in_training(name: str, mutations: Sequence[nx.Mutation], probe: Any, unseen: Any) -> dict[str, Any]:
    """Trains a step, then for every mutation: edit, take back, edit again, train two steps; replays all in the end.

    Returns:
        For the table: what was done, tensors with new entries and how many of them learnt, and every fault in words.
    """
    model = build(name)
    is_giant = sum(p.numel() for p in model.parameters()) > GIANT
    kind = "SGD" if is_giant else random.Random(name).choice(["SGD", "AdamW"])
    optimizer: Optimizer = (
        SGD(model.parameters(), lr=1e-3, momentum=0.9) if kind == "SGD" else AdamW(model.parameters(), lr=1e-3)
    )
    row: dict[str, Any] = {"optimizer": kind, "edits": 0, "grown_tensors": 0, "deaf": [], "faults": [], "refused": []}
    _step(model, optimizer, unseen)
    surgeon = nx.Surgeon(model, probe, optimizer)
    for mutation in mutations:
        _one_edit(Bench(model, surgeon, unseen, optimizer), mutation, row)
    row["replay"] = _replayed(name, surgeon, probe, unseen)
    if row["replay"] != "same":
        row["faults"].append(f"replay: {row['replay']}")
    return row


def _one_edit(bench: Bench, mutation: nx.Mutation, row: dict[str, Any]) -> None:
    tested = tried(bench, Outcome(axis=mutation.place, kind=type(mutation).__name__), mutation)
    if tested.outcome in ("refused", "taken back"):
        row["refused"].append(f"{mutation}: {tested.reason}")
        return
    if tested.outcome != "exact":
        row["faults"].append(f"{mutation}: {tested.outcome} {tested.reason} {tested.second_change:.1e}")
        return
    assert bench.optimizer is not None
    # What fails here worked a moment ago on the same model: every error is a fault to be written down.
    try:
        patch = bench.surgeon.apply(mutation)
        heard: set[str] = set()
        for _ in range(_STEPS_TO_LEARN):
            heard |= _step(bench.model, bench.optimizer, bench.unseen, patch)
    except Exception as error:  # see above
        row["faults"].append(f"{mutation}: training: {type(error).__name__}: {error}")
        return
    row["edits"] += 1
    row["grown_tensors"] += len(patch.new_entries(bench.model))
    row["deaf"] += sorted(_expected(bench.model, patch) - heard)


def _step(model: nn.Module, optimizer: Optimizer, inputs: Any, patch: nx.Patch | None = None) -> set[str]:
    """Makes one optimizer step in train mode; returns the parameters whose new entries got a gradient."""
    observe.seed_everything(1)
    optimizer.zero_grad()
    with observe.mode(model, training=True):
        loss = _loss(observe.float_outputs(observe.call(model, inputs)))
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss.item()}")
    loss.backward()
    heard = set()
    if patch is not None:
        named = dict(model.named_parameters())
        for path, mask in patch.new_entries(model).items():
            gradient = named[path].grad
            if gradient is not None and bool((gradient if mask is None else gradient[mask.to(gradient.device)]).any()):
                heard.add(path)
    optimizer.step()
    return heard


def _expected(model: nn.Module, patch: nx.Patch) -> set[str]:
    """Parameters whose new entries should learn: those that are all new, and those whose old entries do."""
    expected = set()
    named = dict(model.named_parameters())
    for path, mask in patch.new_entries(model).items():
        gradient = named[path].grad
        if mask is None or (gradient is not None and bool(gradient[~mask].any()) and bool(mask.any())):
            expected.add(path)
    return expected


def _loss(outputs: list[torch.Tensor]) -> torch.Tensor:
    terms = []
    for output in outputs:
        if output.requires_grad:
            weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
            terms.append((output * weights).mean() + 0.5 * output.square().mean())
    return torch.stack(terms).sum()


def _replayed(name: str, surgeon: nx.Surgeon, probe: Any, unseen: Any) -> str:
    fresh = build(name)
    try:
        nx.replay(fresh, nx.Lineage.from_json(surgeon.lineage.to_json()), probe)
    except NeuroExaptError as error:
        return str(error)
    shapes, expected = ({k: v.shape for k, v in m.state_dict().items()} for m in (fresh, surgeon.model))
    if shapes != expected or list(shapes) != list(expected):
        return "other keys or shapes"
    fresh.load_state_dict(surgeon.model.state_dict())
    pairs = [observe.outputs(model, unseen, training=False) for model in (surgeon.model, fresh)]
    change = observe.relative_change(*pairs)
    return "same" if change <= 1e-6 else f"outputs differ by {change:.1e}"
