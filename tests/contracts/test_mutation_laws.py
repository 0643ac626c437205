"""The seven laws that every mutation meets, on every contract network. A new mutation needs no new test code."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.optim import SGD, AdamW, Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import neuroexapt.surgery.apply as writer
from contracts.networks import NETWORKS, batch, build
from contracts.state import fingerprint, raw
from neuroexapt.errors import SurgeryError, TraceError
from neuroexapt.graph import NEW, trace
from neuroexapt.surgery import MUTATIONS, Lineage, Mutation, Patch, Surgeon, candidates, parse, replay

EXACT = 1e-10  # float64, relative: summation order is all that may differ

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


def _cases(name: str) -> list[tuple[str, Mutation]]:
    """Every axis that can be widened, and of the other kinds the last place."""
    found = candidates(trace(build(name), batch()))
    by_kind = {kind: [m for m in found if type(m).__name__ == kind] for kind in MUTATIONS}
    kept = [m for kind, of_kind in by_kind.items() for m in (of_kind if kind == "Widen" else of_kind[-1:])]
    return [(name, mutation) for mutation in kept]


CASES = [case for name in NETWORKS for case in _cases(name)]
FIRST = list({(name, type(m)): (name, m) for name, m in reversed(CASES)}.values())[::-1]
every_case = pytest.mark.parametrize(("network", "mutation"), CASES, ids=[f"{n}-{m}" for n, m in CASES])
one_of_each_kind = pytest.mark.parametrize(
    ("network", "mutation"), FIRST, ids=[f"{n}-{type(m).__name__}" for n, m in FIRST]
)


def step(model: nn.Module, optimizer: Optimizer, seed: int) -> None:
    inputs = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    target = torch.arange(4) % 5
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(inputs), target).backward()
    optimizer.step()


def trained(network: str, optimizer_name: str = "adamw") -> tuple[nn.Module, Optimizer, Surgeon]:
    """A network in the middle of training, with a full optimizer state."""
    model = build(network)
    optimizer = OPTIMIZERS[optimizer_name](model)
    for seed in range(2):
        step(model, optimizer, seed)
    optimizer.zero_grad()
    return model, optimizer, Surgeon(model, batch(), optimizer)


def outputs(model: nn.Module, inputs: Tensor, training: bool) -> Tensor:
    model = copy.deepcopy(model).train(training)
    with torch.no_grad():
        return model(inputs)


def test_every_kind_has_a_case_somewhere() -> None:
    assert {type(mutation).__name__ for _, mutation in CASES} == set(MUTATIONS)


def test_every_network_admits_an_edit() -> None:
    assert {name for name, _ in CASES} == set(NETWORKS)


@every_case
def test_the_function_is_preserved_on_data_that_the_surgeon_never_saw(network: str, mutation: Mutation) -> None:
    model, _, surgeon = trained(network)
    unseen = 3 * torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
    modes = {"eval": False, "train": True}
    before = {mode: outputs(model, unseen, training) for mode, training in modes.items()}
    patch = surgeon.apply(mutation)
    for mode in set(modes) - patch.declared:
        change = (outputs(model, unseen, modes[mode]) - before[mode]).abs().max()
        assert change <= EXACT * before[mode].abs().max()
    assert patch.output_change <= EXACT or patch.declared
    assert patch.verified_in_train_mode or "train" in patch.declared


@every_case
def test_revert_restores_the_same_bytes(network: str, mutation: Mutation) -> None:
    model, optimizer, surgeon = trained(network)
    before = fingerprint(model, optimizer)
    surgeon.revert(surgeon.apply(mutation))
    assert fingerprint(model, optimizer) == before
    assert surgeon.lineage == Lineage()


@every_case
def test_planning_touches_nothing_and_the_same_seed_gives_the_same_result(network: str, mutation: Mutation) -> None:
    model, optimizer, surgeon = trained(network)
    before = fingerprint(model, optimizer)
    surgeon.plan(mutation)
    assert fingerprint(model, optimizer) == before
    twin = trained(network)
    surgeon.apply(mutation)
    twin[2].apply(mutation)
    assert [raw(t) for t in model.state_dict().values()] == [raw(t) for t in twin[0].state_dict().values()]


@pytest.mark.parametrize(
    ("network", "mutation", "optimizer_name"), [(*c, "adamw") for c in CASES] + [(*c, "sgd") for c in FIRST]
)
def test_the_optimizer_keeps_exactly_the_parameters_and_every_surviving_moment(
    network: str, mutation: Mutation, optimizer_name: str
) -> None:
    model, optimizer, surgeon = trained(network, optimizer_name)
    names = {id(p): name for name, p in model.named_parameters()}
    before = {names[id(p)]: {k: v.clone() for k, v in s.items() if v.dim()} for p, s in optimizer.state.items()}
    group_of = {id(p): i for i, g in enumerate(optimizer.param_groups) for p in g["params"]}
    patch = surgeon.apply(mutation)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted({id(p) for p in model.parameters()})
    for name, parameter in model.named_parameters():
        index = next(i for i, g in enumerate(optimizer.param_groups) if any(p is parameter for p in g["params"]))
        if name in before:
            assert index == group_of[id(parameter)]
            _assert_moments_moved(patch, name, before[name], optimizer.state[parameter])
        elif optimizer_name == "adamw":
            assert index == (0 if parameter.dim() > 1 else 1)
    step(model, optimizer, 5)


def _assert_moments_moved(patch: Patch, name: str, before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    for key, old in before.items():
        new = after[key]
        if name not in patch.sources:
            assert torch.equal(new, old)
            continue
        surviving = new
        for dim, indices in enumerate(patch.sources[name].maps):
            if indices is not None:
                kept = (indices != NEW).nonzero().flatten()
                surviving = surviving.index_select(dim, kept)
                old = old.index_select(dim, indices[kept])
        assert torch.equal(surviving, old)
        assert not new[_without_source(patch.sources[name].maps, new)].any()


def _without_source(maps: tuple[Tensor | None, ...], like: Tensor) -> Tensor:
    """Where an entry is no copy of an old one; copies keep the moments of their original."""
    mask = torch.zeros(like.shape, dtype=torch.bool)
    for dim, indices in enumerate(maps):
        if indices is not None:
            mask |= (indices == NEW).view([-1 if d == dim else 1 for d in range(like.dim())])
    return mask


@every_case
def test_json_round_trip_and_replay_on_the_seed_model(network: str, mutation: Mutation) -> None:
    assert parse(MUTATIONS, json.loads(json.dumps(mutation.to_json()))) == mutation
    model, seed_model = build(network), build(network)
    surgeon = Surgeon(model, batch(), seed=5)
    surgeon.apply(mutation)
    again = candidates(surgeon.graph)[-1]
    surgeon.apply(again)
    lineage = Lineage.from_json(json.loads(json.dumps(surgeon.lineage.to_json())))
    assert lineage == surgeon.lineage
    replay(seed_model, lineage, batch())
    assert {k: v.shape for k, v in seed_model.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    assert list(seed_model.state_dict()) == list(model.state_dict())
    assert torch.equal(outputs(seed_model, batch(), False), outputs(model, batch(), False))


@every_case
def test_every_parameter_with_new_entries_gets_a_gradient_there_within_two_steps(
    network: str, mutation: Mutation
) -> None:
    model, optimizer, surgeon = trained(network, "sgd")
    patch = surgeon.apply(mutation)
    masks = patch.new_entries(model)
    reached = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in model.named_parameters() if name in masks}
    for seed in (21, 22):
        step(model, optimizer, seed)
        for name, parameter in model.named_parameters():
            if name in masks:
                assert parameter.grad is not None
                reached[name] |= parameter.grad != 0
    for name, mask in masks.items():
        if mask is not None and not mask.any():
            continue  # entries only went
        new = reached[name] if mask is None else reached[name][mask]
        assert new.any(), f"{name}: no new entry ever got a gradient"


@every_case
def test_the_reported_deltas_equal_a_recount(network: str, mutation: Mutation) -> None:
    def count(model: nn.Module) -> tuple[int, int]:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            copy.deepcopy(model).eval()(batch())
        return sum(p.numel() for p in model.parameters()), counter.get_total_flops()

    model, _, surgeon = trained(network)
    before = count(model)
    patch = surgeon.apply(mutation)
    after = count(model)
    assert patch.parameter_delta == after[0] - before[0]
    assert patch.flop_delta * len(batch()) == after[1] - before[1]


META = torch.device("meta")


class FailAt(TorchDispatchMode):
    """Runs out of memory at the n-th operator that allocates, and at every later one; counts them.

    Views and fakes are spared: they allocate nothing, and torch itself aborts when one fails inside its C++ code.
    """

    def __init__(self, failing: int | None = None) -> None:
        super().__init__()
        self.failing, self.count = failing, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        is_view = any(result.alias_info is not None for result in func._schema.returns)
        is_fake = any(isinstance(leaf, FakeTensor) or leaf is META for leaf in tree_leaves((args, kwargs)))
        if not is_view and not is_fake and not torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE):
            if self.count == self.failing:
                raise MemoryError("injected")
            self.count += 1
        return func(*args, **(kwargs or {}))


@one_of_each_kind
def test_a_failure_at_any_operator_of_an_edit_leaves_no_trace(network: str, mutation: Mutation) -> None:
    model, optimizer, surgeon = trained(network)
    before = fingerprint(model, optimizer)
    with FailAt() as counter:
        surgeon.revert(surgeon.apply(mutation))
    for failing in range(0, counter.count, max(1, counter.count // 12)):
        surgeon = Surgeon(model, batch(), optimizer)
        with FailAt(failing), contextlib.suppress(MemoryError, TraceError, SurgeryError):
            surgeon.revert(surgeon.apply(mutation))
        assert fingerprint(model, optimizer) == before, f"operator {failing} of {counter.count}"


@pytest.mark.parametrize("stage", ["move_state", "adopt", "set_attribute", "_graft", "_resize"])
def test_a_failure_at_any_write_leaves_no_trace(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original, failures = getattr(writer, stage), 0
    for network, mutation in FIRST:
        model, optimizer, surgeon = trained(network)
        before, calls = fingerprint(model, optimizer), []

        def second_call_fails(*args: object, calls: list[int] = calls) -> object:
            if len(calls) == 1 and stage == "set_attribute":
                raise RuntimeError("injected")
            undo = original(*args)
            calls.append(1)
            if len(calls) == 2 or (len(calls) == 1 and stage in ("adopt", "_graft")):
                raise RuntimeError("injected")
            return undo

        monkeypatch.setattr(writer, stage, second_call_fails)
        try:
            surgeon.revert(surgeon.apply(mutation))
        except RuntimeError:
            failures += 1
        assert fingerprint(model, optimizer) == before
    assert failures


@one_of_each_kind
def test_an_edit_that_changes_the_function_is_refused_and_undone(
    network: str, mutation: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer, surgeon = trained(network)
    before = fingerprint(model, optimizer)
    monkeypatch.setattr("neuroexapt.surgery.witness.tolerance_for", lambda model, outputs: -1.0)
    monkeypatch.setattr("neuroexapt.surgery.witness.rounding_allowance", lambda seen, model, inputs: -1.0)
    with pytest.raises(SurgeryError, match=r"changed the outputs by .* The edit was taken back"):
        surgeon.apply(mutation)
    assert fingerprint(model, optimizer) == before
