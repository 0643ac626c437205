"""Hanging pieces on a user's module, and taking them away."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from contracts.networks import batch, build
from neuroexapt.errors import SurgeryError
from neuroexapt.surgery import InsertLayer, Surgeon
from neuroexapt.surgery.writing.graft import attach, detach, is_piece_path

SITE = "features.2"


def grafted(dtype: torch.dtype = torch.float64) -> nn.Module:
    model = build("conv_bn", dtype).eval()
    surgeon = Surgeon(model, batch(dtype))
    surgeon.apply(InsertLayer(site=SITE))
    surgeon.apply(InsertLayer(site="features.3"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".grafts." in name:
                parameter.add_(0.1)
    return model


def test_the_site_stays_what_it_was_for_the_user() -> None:
    model, seed = grafted(), build("conv_bn")
    conv = model.get_submodule("features.3")
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.shape == (7, 6, 3, 3)
    assert conv.extra_repr() == seed.get_submodule("features.3").extra_repr()
    added = set(model.state_dict()) - set(seed.state_dict())
    assert set(seed.state_dict()) < set(model.state_dict())
    assert all(key.startswith((f"{SITE}.grafts.0.", "features.3.grafts.0.")) for key in added)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_and_pickles_compute_the_same_and_share_nothing(copied) -> None:  # type: ignore[no-untyped-def]
    model = grafted()
    twin = copied(model)
    assert torch.equal(twin(batch()), model(batch()))
    assert type(twin.get_submodule(SITE)) is type(model.get_submodule(SITE))
    with torch.no_grad():
        twin.get_submodule(SITE).grafts[0].conv.weight.zero_()
    assert not torch.equal(twin(batch()), model(batch()))


def test_a_saved_model_opens_in_a_fresh_process(tmp_path: Path) -> None:
    model = grafted()
    torch.save(model, tmp_path / "model.pt")
    torch.save(model(batch()), tmp_path / "expected.pt")
    code = (
        "import sys, torch; torch.set_num_threads(1); sys.path.insert(0, 'tests')\n"
        "from contracts.networks import batch\n"
        f"model = torch.load({str(tmp_path / 'model.pt')!r}, weights_only=False)\n"
        f"assert torch.equal(model(batch()), torch.load({str(tmp_path / 'expected.pt')!r}))\n"
        f"assert isinstance(model.get_submodule({SITE!r}), torch.nn.ReLU)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Add(nn.Module):
    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, x: Tensor, *inputs: Tensor) -> Tensor:
        return x * 2 + self.amount


def test_two_grafts_on_one_site_run_in_order_and_leave_last_first() -> None:
    site = nn.Linear(3, 3)
    x = torch.randn(2, 3)
    plain = site(x)
    attach(site, Add(1.0))
    attach(site, Add(3.0))
    assert torch.equal(site(x), (plain * 2 + 1) * 2 + 3)
    detach(site)
    assert torch.equal(site(x), plain * 2 + 1)
    detach(site)
    assert type(site) is nn.Linear
    assert not hasattr(site, "grafts")
    assert torch.equal(site(x), plain)


def test_two_insertions_on_one_site_replay_and_revert() -> None:
    model = build("conv_bn")
    surgeon = Surgeon(model, batch())
    before = model.eval()(batch())
    patches = [surgeon.apply(InsertLayer(site=SITE)) for _ in range(2)]
    assert [len(p.added) for p in patches] == [2, 2]
    assert (model(batch()) - before).abs().max() < 1e-10
    for patch in reversed(patches):
        surgeon.revert(patch)
    assert type(model.get_submodule(SITE)) is nn.ReLU
    assert torch.equal(model(batch()), before)


def test_a_module_with_an_attribute_of_that_name_is_refused() -> None:
    class Orchard(nn.Linear):
        grafts = "apple on pear"

    model = nn.Sequential(Orchard(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with pytest.raises(SurgeryError, match=r"Orchard has an attribute 'grafts' of its own; rename it to graft here\."):
        Surgeon(model, torch.randn(2, 4)).apply(InsertLayer(site="0", kernel_size=1))
    assert type(model[0]) is Orchard


def test_only_a_whole_path_segment_names_a_piece() -> None:
    assert is_piece_path("features.2.grafts.0")
    assert not is_piece_path("features.graftsman")


def test_a_compiled_model_gives_equal_outputs_before_and_after() -> None:
    torch._dynamo.reset()
    model = build("conv_bn").eval()
    compiled = torch.compile(model, backend="eager")
    before = compiled(batch()).detach()
    surgeon = Surgeon(model, batch())
    surgeon.apply(InsertLayer(site=SITE))
    assert (compiled(batch()) - before).abs().max() <= 1e-10 * before.abs().max()
    with torch.no_grad():
        model.get_submodule(SITE).grafts[0].conv.bias.add_(0.5)
    assert torch.equal(compiled(batch()), model(batch()))
    assert (compiled(batch()) - before).abs().max() > 1e-3
    torch._dynamo.reset()
