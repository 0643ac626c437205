"""The seven laws that every mutation meets, on every contract network. A new mutation needs no new test code."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import neuroexapt.surgery.writing.apply as writer
from contracts import laws
from contracts.cases import CASES, FEW, IDS
from contracts.experiment import Experiment, Memory, experiment, objective, outputs, trained
from contracts.networks import NETWORKS, batch, build
from contracts.state import fingerprint
from neuroexapt.errors import SurgeryError, TraceError
from neuroexapt.graph import NEW
from neuroexapt.surgery import MUTATIONS, Lineage, Mutation, Patch, Surgeon, replay

one_of_each_kind = pytest.mark.parametrize(
    ("network", "mutation"), FEW, ids=[f"{n}-{type(m).__name__}" for n, m in FEW]
)


@pytest.fixture(scope="module", params=CASES, ids=IDS)
def edit(request: pytest.FixtureRequest) -> Experiment:
    return experiment(*request.param)


def test_every_kind_has_a_case_somewhere() -> None:
    assert {type(mutation).__name__ for _, mutation in CASES} == set(MUTATIONS)


def test_every_network_admits_an_edit() -> None:
    assert {name for name, _ in CASES} == set(NETWORKS)


def test_the_function_is_preserved_on_data_that_the_surgeon_never_saw(edit: Experiment) -> None:
    laws.assert_function_preserved(edit)


def test_revert_restores_the_same_bytes(edit: Experiment) -> None:
    laws.assert_reverted(edit)


def test_planning_touches_nothing(edit: Experiment) -> None:
    assert edit.is_planning_pure


def test_the_same_seed_gives_the_same_bits(edit: Experiment) -> None:
    assert edit.is_reproducible


def test_the_optimizer_keeps_exactly_the_parameters_and_every_surviving_moment(edit: Experiment) -> None:
    _assert_memory_is_kept(edit.patch, *edit.memory)
    for name, index in edit.memory[1].group_of.items():
        if name not in edit.memory[0].group_of and name in edit.masks and edit.masks[name] is None:
            is_matrix = edit.reached[name].dim() > 1
            assert index == (0 if is_matrix else 1)


@one_of_each_kind
def test_so_does_one_with_momentum(network: str, mutation: Mutation) -> None:
    model, optimizer, surgeon = trained(network, "sgd")
    before = Memory.of(model, optimizer)
    patch = surgeon.apply(mutation)
    _assert_memory_is_kept(patch, before, Memory.of(model, optimizer))


def _assert_memory_is_kept(patch: Patch, before: Memory, after: Memory) -> None:
    assert after.is_complete
    for name in before.state.keys() & after.group_of.keys():
        assert after.group_of[name] == before.group_of[name]
        _assert_moments_moved(patch, name, before.state[name], after.state[name])


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


def test_json_round_trip_and_replay_on_the_seed_model(edit: Experiment) -> None:
    laws.assert_replayed(edit)


@one_of_each_kind
def test_an_edit_of_an_edited_model_replays_too(network: str, mutation: Mutation) -> None:
    model, seed_model = build(network), build(network)
    surgeon = Surgeon(model, batch(), seed=5, objective=objective)
    surgeon.apply(mutation)
    surgeon.apply(surgeon.candidates(["InsertLayer"])[-1])
    replay(seed_model, Lineage.from_json(surgeon.lineage.to_json()), batch(), objective=objective)
    assert list(seed_model.state_dict()) == list(model.state_dict())
    assert torch.equal(outputs(seed_model, batch(), False), outputs(model, batch(), False))


def test_every_parameter_with_new_entries_gets_a_gradient_there_within_two_steps(edit: Experiment) -> None:
    laws.assert_new_entries_learn(edit)


def test_the_reported_deltas_equal_a_recount(edit: Experiment) -> None:
    laws.assert_deltas_recounted(edit)


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
    for failing in range(0, counter.count, max(1, counter.count // 6)):
        surgeon = Surgeon(model, batch(), optimizer, objective=objective)
        with FailAt(failing), contextlib.suppress(MemoryError, TraceError, SurgeryError):
            surgeon.revert(surgeon.apply(mutation))
        assert fingerprint(model, optimizer) == before, f"operator {failing} of {counter.count}"


@pytest.mark.parametrize("stage", ["move_state", "adopt", "set_attribute", "_graft", "_resize"])
def test_a_failure_at_any_write_leaves_no_trace(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original, failures = getattr(writer, stage), 0
    for network, mutation in FEW:
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
    monkeypatch.setattr("neuroexapt.surgery.checking.witness.tolerance_for", lambda model, outputs: -1.0)
    monkeypatch.setattr("neuroexapt.surgery.checking.witness.rounding_allowance", lambda seen, model, inputs: -1.0)
    with pytest.raises(SurgeryError, match=r"changed the outputs by .* The edit was taken back"):
        surgeon.apply(mutation)
    assert fingerprint(model, optimizer) == before
