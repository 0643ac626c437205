"""What a grown model can still do: be exported, compiled, and pickled without this package. For every kind there is."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator

import onnxruntime
import pytest
import torch
from torch import nn

from contracts.cases import CASES, FEW
from contracts.networks import NETWORKS, batch, build
from neuroexapt.errors import SurgeryError
from neuroexapt.surgery import MUTATIONS, AddAttention, InsertLayer, Mutation, Surgeon, Widen

one_of_each_kind = pytest.mark.parametrize(("network", "mutation"), FEW, ids=[type(m).__name__ for _, m in FEW])


def exporting(test: Callable[..., None]) -> Callable[..., None]:
    """Lets two warnings pass: torch's exporters call what torch has deprecated, and ``torch.nn.utils.prune`` assigns
    the weight that it computes in every forward, which they see; what comes out is compared all the same.
    """
    for warning in (
        r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning",
        r"ignore:The tensor attribute self\..*weight was assigned during export:UserWarning",
    ):
        test = pytest.mark.filterwarnings(warning)(test)
    return test


X = batch(torch.float32)


def objective(model: nn.Module) -> torch.Tensor:
    return nn.functional.cross_entropy(model(X), torch.arange(len(X)))


def surgeon_of(network: str) -> Surgeon:
    return Surgeon(build(network, torch.float32).eval(), X, objective=objective)


def awake(model: nn.Module) -> nn.Module:
    """Moves inserted pieces off their zeros, so that an exporter that drops them is found out."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".grafts." in name:
                parameter.add_(0.1)
    return model


def grown_by_many() -> list[tuple[nn.Module, set[str]]]:
    """Grows as few networks as it takes to see every kind at work, each by one edit of every kind that it admits."""
    found, missing = [], set(MUTATIONS)
    for name in ("resnet_bottleneck", "transformer", *NETWORKS):
        surgeon, applied = surgeon_of(name), set()
        for mutation in {type(m): m for network, m in CASES if network == name}.values():
            if type(mutation).__name__ in missing:
                try:
                    surgeon.apply(mutation)
                    applied.add(type(mutation).__name__)
                except SurgeryError:  # an earlier one has taken its place
                    continue
        if applied:
            found.append((awake(surgeon.model), applied))
        missing -= applied
        if not missing:
            break
    return found


@pytest.fixture(scope="module")
def many() -> list[tuple[nn.Module, set[str]]]:
    return grown_by_many()


@pytest.fixture
def _compiler_forgets() -> Iterator[None]:
    yield
    torch.compiler.reset()


def test_every_kind_is_at_work_in_some_grown_model(many: list[tuple[nn.Module, set[str]]]) -> None:
    assert set().union(*(kinds for _, kinds in many)) == set(MUTATIONS)


@exporting
def test_models_grown_by_every_kind_go_through_torch_export(many: list[tuple[nn.Module, set[str]]]) -> None:
    for model, kinds in many:
        exported = torch.export.export(model, (X,), strict=False).module()
        with torch.no_grad():
            assert (exported(X) - model(X)).abs().max() <= 1e-6, kinds


@pytest.mark.slow
@exporting
@one_of_each_kind
def test_a_grown_model_goes_through_torch_export(network: str, mutation: Mutation) -> None:
    surgeon = surgeon_of(network)
    surgeon.apply(mutation)
    model = awake(surgeon.model)
    exported = torch.export.export(model, (X,), strict=False).module()
    with torch.no_grad():
        assert (exported(X) - model(X)).abs().max() <= 1e-6


@exporting
@pytest.mark.slow
def test_a_grown_model_computes_the_same_in_another_runtime() -> None:
    surgeon = surgeon_of("plain_conv")
    for mutation in (Widen(axis="conv1", to=9), InsertLayer(site="conv1"), AddAttention(site="conv2")):
        surgeon.apply(mutation)
    assert_same_in_onnx(awake(surgeon.model))


@pytest.mark.slow
@exporting
def test_models_grown_by_every_kind_compute_the_same_in_another_runtime(
    many: list[tuple[nn.Module, set[str]]],
) -> None:
    for model, _ in many:
        assert_same_in_onnx(model)


def assert_same_in_onnx(model: nn.Module) -> None:
    stored = io.BytesIO()
    torch.onnx.export(model, (X,), dynamo=True, verbose=False).save(stored)
    session = onnxruntime.InferenceSession(stored.getvalue(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    with torch.no_grad():
        assert (torch.from_numpy(found) - model(X)).abs().max() <= 1e-5


@pytest.mark.usefixtures("_compiler_forgets")
def test_a_grown_model_compiles_as_a_whole(many: list[tuple[nn.Module, set[str]]]) -> None:
    for model, kinds in many:
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        with torch.no_grad():
            assert torch.equal(compiled(X), model(X)), kinds


@one_of_each_kind
def test_where_only_standard_layers_were_touched_the_pickle_does_not_know_this_package(
    network: str, mutation: Mutation
) -> None:
    surgeon = surgeon_of(network)
    has_pieces = any(stage.grafts or stage.freed for stage in surgeon.plan(mutation).stages)
    surgeon.apply(mutation)
    assert (b"neuroexapt" in pickle.dumps(surgeon.model)) == has_pieces
