"""Saving and loading a grown model with its optimizer, for anybody's own loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from contracts.state import raw
from neuroexapt.errors import CheckpointError
from neuroexapt.surgery import Surgeon, candidates
from neuroexapt.train import load_checkpoint, save_checkpoint


def seed_model(width: int = 5, dtype: torch.dtype = torch.float32, classes: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * width, classes),
        )
        return model.to(dtype)


def groups(model: nn.Module) -> list[dict[str, object]]:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    return [{"params": matrices}, {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0}]


OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "sgd": lambda m: SGD(groups(m), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "plain sgd": lambda m: SGD(m.parameters(), lr=0.05),
    "adamw": lambda m: AdamW(groups(m), lr=0.01, amsgrad=True, betas=(0.8, 0.99)),
}
INPUTS = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(6) % 3


def train(model: nn.Module, optimizer: Optimizer, num_steps: int) -> None:
    model.train()
    for _ in range(num_steps):
        optimizer.zero_grad()
        F.cross_entropy(model(INPUTS.to(next(model.parameters()).dtype)), LABELS).backward()
        optimizer.step()
    optimizer.zero_grad()


def grown(make_optimizer: Callable[[nn.Module], Optimizer]) -> tuple[Surgeon, Optimizer]:
    model = seed_model()
    optimizer = make_optimizer(model)
    surgeon = Surgeon(model, INPUTS, optimizer)
    for kind in ("Widen", "InsertLayer"):
        train(model, optimizer, 2)
        surgeon.apply(candidates(surgeon.graph, [kind])[0])
    train(model, optimizer, 2)
    optimizer.param_groups[0]["lr"] = 0.003
    return surgeon, optimizer


def values(model: nn.Module, optimizer: Optimizer) -> object:
    names = {id(p): name for name, p in model.named_parameters()}
    state = {
        names[id(p)]: {k: raw(v) if isinstance(v, Tensor) else v for k, v in s.items()}
        for p, s in optimizer.state.items()
    }
    settings = [
        {k: [names[id(p)] for p in v] if k == "params" else v for k, v in group.items()}
        for group in optimizer.param_groups
    ]
    return {k: raw(v) for k, v in model.state_dict().items()}, state, settings


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_grown_model_and_its_optimizer_come_back_to_the_bit_and_train_on_alike(name: str, tmp_path: Path) -> None:
    surgeon, optimizer = grown(OPTIMIZERS[name])
    save_checkpoint(tmp_path / "c", surgeon.model, surgeon.lineage, optimizer, {"note": [1, "two"]})
    model = seed_model()
    again = OPTIMIZERS[name](model)
    loaded = load_checkpoint(tmp_path / "c", model, INPUTS, again)
    assert loaded.extra == {"note": [1, "two"]}
    assert loaded.surgeon.lineage == surgeon.lineage
    assert values(model, again) == values(surgeon.model, optimizer)
    train(model, again, 2)
    train(surgeon.model, optimizer, 2)
    assert values(model, again) == values(surgeon.model, optimizer)
    edit = candidates(surgeon.graph, ["Widen"])[0]
    loaded.surgeon.apply(edit)


def test_plain_safetensors_opens_as_the_state_dict_of_the_grown_model(tmp_path: Path) -> None:
    surgeon, _ = grown(OPTIMIZERS["adamw"])
    save_checkpoint(tmp_path / "c", surgeon.model, surgeon.lineage)
    found = load_file(tmp_path / "c" / "model.safetensors")
    needed = surgeon.model.state_dict()
    assert found.keys() == needed.keys()
    assert all(torch.equal(found[key], needed[key]) for key in needed)


class Tied(nn.Module):
    """Two names for one weight, and a buffer that the state dict leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("phase", torch.ones(4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x))) * self.phase


def test_tied_weights_and_transient_buffers_come_back_and_the_file_is_still_the_state_dict(tmp_path: Path) -> None:
    model = Tied()
    model.phase.fill_(0.25)
    save_checkpoint(tmp_path / "c", model, Surgeon(model, torch.ones(2, 4)).lineage)
    fresh = Tied()
    load_checkpoint(tmp_path / "c", fresh, torch.ones(2, 4))
    assert fresh.second.weight is fresh.first.weight
    assert torch.equal(fresh.phase, model.phase)
    Tied().load_state_dict(load_file(tmp_path / "c" / "model.safetensors"))


@pytest.fixture(name="saved")
def fixture_saved(tmp_path: Path) -> Path:
    surgeon, optimizer = grown(OPTIMIZERS["adamw"])
    save_checkpoint(tmp_path / "c", surgeon.model, surgeon.lineage, optimizer)
    return tmp_path / "c"


@pytest.mark.parametrize(
    ("make_optimizer", "message"),
    [
        (OPTIMIZERS["sgd"], r"found AdamW, needed SGD. Give the kind"),
        (lambda m: Adam(groups(m)), r"found AdamW, needed Adam\. "),
        (lambda m: AdamW(m.parameters()), r"found 2 param groups, needed 1. Build the optimizer"),
    ],
    ids=["kind", "similar kind", "groups"],
)
def test_another_optimizer_is_refused_before_anything_is_changed(
    saved: Path, make_optimizer: Callable[[nn.Module], Optimizer], message: str
) -> None:
    model = seed_model()
    optimizer = make_optimizer(model)
    before = values(model, optimizer)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved, model, INPUTS, optimizer)
    assert values(model, optimizer) == before


def test_a_checkpoint_without_an_optimizer_says_so(tmp_path: Path) -> None:
    model = seed_model()
    save_checkpoint(tmp_path / "c", model, Surgeon(model, INPUTS).lineage)
    with pytest.raises(CheckpointError, match=r"found no optimizer, needed SGD"):
        load_checkpoint(tmp_path / "c", model, INPUTS, OPTIMIZERS["sgd"](model))


@pytest.mark.parametrize(
    ("make_model", "message"),
    [
        (
            lambda: seed_model(classes=4),
            r"4.weight: found torch.float32 \[3, 128\], needed torch.float32 \[4, 128\]. Use",
        ),
        (lambda: seed_model(width=9), r"lineage step 0.* Build the seed model that it was saved with"),
        (lambda: seed_model(dtype=torch.float64), r"found torch.float32 .*, needed torch.float64"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), r"lineage step 0.* Build the seed model"),
    ],
    ids=["classes", "too wide to widen", "dtype", "other network"],
)
def test_another_seed_model_is_refused_by_name(saved: Path, make_model: Callable[[], nn.Module], message: str) -> None:
    model = make_model()
    inputs = INPUTS.to(next(model.parameters()).dtype)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved, model, inputs)


def test_a_damaged_file_is_named_before_anything_is_changed(saved: Path) -> None:
    path = saved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    model = seed_model()
    before = {k: raw(v) for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"model.safetensors: found sha256"):
        load_checkpoint(saved, model, INPUTS)
    assert {k: raw(v) for k, v in model.state_dict().items()} == before


def test_an_optimizer_of_another_model_cannot_be_saved(tmp_path: Path) -> None:
    model = seed_model()
    with pytest.raises(CheckpointError, match=r"SGD holds a parameter that Sequential does not have"):
        save_checkpoint(tmp_path / "c", model, Surgeon(model, INPUTS).lineage, SGD(seed_model().parameters()))
    assert not (tmp_path / "c").exists()
