"""Models under ``torch.compile``: edited as they are written, compiled again after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.optim import SGD

from contracts.networks import batch, build
from neuroexapt.graph import trace
from neuroexapt.surgery import InsertLayer, Surgeon, Widen

EXACT = 1e-10


@pytest.fixture(autouse=True)
def _compiler_forgets() -> Iterator[None]:
    yield
    torch.compiler.reset()


def whole(model: nn.Module, **how: Any) -> nn.Module:
    return torch.compile(model, **how)


def in_place(model: nn.Module, **how: Any) -> nn.Module:
    model.compile(**how)
    return model


def one_part(model: nn.Module, **how: Any) -> nn.Module:
    model.features = torch.compile(model.features, **how)  # type: ignore[assignment]
    return model


def one_part_in_place(model: nn.Module, **how: Any) -> nn.Module:
    model.features.compile(**how)  # type: ignore[union-attr,operator]
    return model


WAYS: list[Callable[..., nn.Module]] = [whole, in_place, one_part, one_part_in_place]


def output(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(batch())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own tracing
@pytest.mark.parametrize("way", WAYS)
def test_a_compiled_model_is_edited_as_written_and_computes_the_same_when_compiled_again(
    way: Callable[..., nn.Module],
) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    model = way(build("conv_bn"), backend=counter)
    prefix = "features._orig_mod" if way is one_part else "features"
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    before = output(model)
    surgeon = Surgeon(model, batch(), optimizer)
    surgeon.apply(Widen(axis=f"{prefix}.0", to=9))
    patch = surgeon.apply(InsertLayer(site=f"{prefix}.5"))
    compiled = counter.frame_count
    assert (output(model) - before).abs().max() <= EXACT * before.abs().max()
    assert counter.frame_count > compiled
    with torch.compiler.set_stance("force_eager"):
        assert (output(model) - before).abs().max() <= EXACT * before.abs().max()
    model.train()(batch()).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    surgeon.revert(patch)
    assert output(model).shape == before.shape


def test_looking_at_a_compiled_model_compiles_nothing() -> None:
    counter = CompileCounterWithBackend("eager")
    model = torch.compile(build("conv_bn"), backend=counter)
    assert trace(model, batch()).group("features.0").size == 6
    Surgeon(model, batch()).apply(Widen(axis="features.0", to=9))
    assert counter.frame_count == 0


def test_more_edits_than_the_recompile_limit_leave_the_model_compiled() -> None:
    counter = CompileCounterWithBackend("eager")
    plain = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    model, x = torch.compile(plain, backend=counter), torch.randn(2, 4).double()
    surgeon = Surgeon(model, x)
    for width in range(7, 8 + torch._dynamo.config.recompile_limit):
        surgeon.apply(Widen(axis="0", to=width))
        before = counter.frame_count
        model(x)
        assert counter.frame_count == before + 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's own, as inductor is imported
def test_inductor_code_of_an_edited_model_computes_the_same() -> None:
    model = torch.compile(build("conv_bn"))
    before = output(model)
    Surgeon(model, batch()).apply(Widen(axis="features.0", to=9))
    assert (output(model) - before).abs().max() <= EXACT * before.abs().max()
