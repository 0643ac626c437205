"""build_model: names, seeds, a user's own function, and what is refused."""

import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from neuroexapt.config import ModelConfig
from neuroexapt.errors import ModelError
from neuroexapt.models import MLP, SmallResNet, build_model

OWN = """
    import torch
    from torch import nn

    constant = 3

    def net(in_channels, num_classes, width=4):
        return nn.Sequential(nn.Conv2d(in_channels, width, 1), nn.Flatten(), nn.LazyLinear(num_classes))

    def nothing(in_channels, num_classes):
        return None

    def fails(in_channels, num_classes):
        raise RuntimeError("no weights on this planet")

    def plain():
        return nn.Identity()
"""


def build(source: str = "resnet", seed: int = 0, **options: Any) -> nn.Module:
    config = ModelConfig(source=source, options=options)
    return build_model(config, in_channels=1, image_size=(8, 8), num_classes=10, seed=seed)


@pytest.fixture
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "own_zoo").mkdir()
    (tmp_path / "own_zoo" / "__init__.py").touch()
    (tmp_path / "own_zoo" / "nets.py").write_text(textwrap.dedent(OWN))
    (tmp_path / "own_zoo" / "broken.py").write_text("def net(:\n")
    (tmp_path / "own_zoo" / "needy.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "own_zoo"]:
        del sys.modules[name]


def test_the_built_in_names_build_the_built_in_networks() -> None:
    assert isinstance(build("resnet"), SmallResNet)
    mlp = build("mlp", hidden=[5])
    assert isinstance(mlp, MLP)
    assert mlp(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_options_reach_the_network() -> None:
    assert len(build("resnet", widths=[4, 4], blocks_per_stage=3).blocks) == 6  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["resnet", "mlp"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(source: str) -> None:
    first, same, other = (build(source, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_weights_do_not_depend_on_the_global_generator_and_leave_it_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build().state_dict()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    second = build().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_function_in_the_current_directory_is_found_and_the_path_is_as_before(own_modules: Path) -> None:
    before = list(sys.path)
    model = build("own_zoo.nets:net", width=6)
    assert model[0].out_channels == 6  # type: ignore[index]
    assert sys.path == before
    assert Path(os.getcwd()) == own_modules


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("resnett", {}, r"found 'resnett', needed 'resnet', 'convnet', 'mlp' or .*Did you mean 'resnet'\?"),
        ("own_zoo.nets.net", {}, "needed 'resnet', 'convnet', 'mlp' or 'package.module:function'"),
        ("own_zoo.nets:", {}, "needed package.module:function"),
        (":net", {}, "needed package.module:function"),
        ("own_zoo.other:net", {}, r"ModuleNotFoundError: No module named 'own_zoo\.other'.*Run in the folder"),
        ("own_zoo.needy:net", {}, r"No module named 'a_package_that_nobody_has'.*importable by itself"),
        ("own_zoo.broken:net", {}, "own_zoo.broken cannot be imported: SyntaxError: "),
        ("own_zoo.nets:nets", {}, r"has no 'nets'. Did you mean own_zoo\.nets:net\?"),
        ("own_zoo.nets:constant", {}, "found int, needed a function or class"),
        ("own_zoo.nets:nothing", {}, "found NoneType, needed an nn.Module"),
        ("own_zoo.nets:fails", {}, "RuntimeError: no weights on this planet"),
        ("own_zoo.nets:plain", {}, r"unexpected keyword argument 'in_channels'. It takes \(\)"),
        ("own_zoo.nets:net", {"widht": 3}, r"'widht'. It takes \(in_channels, num_classes, width\).*'width'\?"),
        ("resnet", {"width": [8]}, r"unexpected keyword argument 'width'.*Did you mean 'widths'\?"),
        ("resnet", {"num_classes": 3}, "found the option 'num_classes', which the data decide"),
        ("mlp", {"hidden": ["a"]}, r"MLP: hidden: found \['a'\]"),
    ],
)
@pytest.mark.usefixtures("own_modules")
def test_a_model_that_cannot_be_built_is_refused_with_advice(
    source: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        build(source, **options)


@pytest.mark.usefixtures("own_modules")
def test_the_original_error_stays_attached() -> None:
    with pytest.raises(ModelError, match="SyntaxError") as caught:
        build("own_zoo.broken:net")
    assert isinstance(caught.value.__cause__, SyntaxError)


@pytest.mark.usefixtures("own_modules")
def test_a_failing_function_leaves_path_and_generator_as_they_were() -> None:
    path, state = list(sys.path), torch.get_rng_state()
    with pytest.raises(ModelError, match="no weights"):
        build("own_zoo.nets:fails")
    assert sys.path == path
    assert torch.equal(state, torch.get_rng_state())
