"""The command line, called in this process, and what it answered."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from neuroexapt.cli.main import main
from neuroexapt.report import save_plots

TINY = ("--model", "mlp", "--limit", "300", "--epochs", "4")
ONE_TRIAL = (
    "--max-events",
    "1",
    "--set",
    "morphogenesis.overhead_fraction=null",
    "--set",
    "morphogenesis.edits_per_event=1",
)


@dataclass(frozen=True)
class Answer:
    """Exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Returns a function that runs ``neuroexapt`` with arguments."""

    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        handlers = list(logging.root.handlers)
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            logging.root.handlers[:] = handlers
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take as long as a small run: only the report of ``finished_run`` has them."""
    monkeypatch.setattr("neuroexapt.report.html.save_plots", lambda summary, folder: {})


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run that grew and finished; look, but change nothing."""
    run_dir = tmp_path_factory.mktemp("cli") / "finished"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuroexapt.report.html.save_plots", save_plots)
        assert main(["grow", "--out", str(run_dir), *TINY, *ONE_TRIAL]) == 0
    return run_dir


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module ``odd_models``, which is the current directory."""
    (tmp_path / "odd_models.py").write_text(
        "from torch import nn\n"
        "\n"
        "def good(in_channels, num_classes, width=6):\n"
        "    return nn.Sequential(nn.Conv2d(in_channels, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),\n"
        "                         nn.Flatten(), nn.Linear(width, num_classes))\n"
        "\n"
        "def eleven(in_channels, num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes + 1))\n"
        "\n"
        "class Stubborn(nn.Module):\n"
        "    def forward(self, x):\n"
        "        raise RuntimeError('the left flange is loose')\n"
        "\n"
        "def stubborn(in_channels, num_classes):\n"
        "    return Stubborn()\n"
        "\n"
        "def unbuildable(in_channels, num_classes):\n"
        "    raise KeyError('no such recipe')\n"
        "\n"
        "def text(in_channels, num_classes):\n"
        "    return 'a network'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_models", raising=False)
    return tmp_path
