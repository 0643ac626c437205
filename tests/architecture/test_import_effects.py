"""``import neuroexapt`` changes nothing that is not its own, and is quick."""

import json
import subprocess
import sys

import pytest

ALLOWED_SECONDS = 0.3  # of the processor, on top of ``import torch``; using every public name adds about 0.25
NOT_AT_IMPORT = ("matplotlib", "sklearn", "pyarrow", "PIL", "rich", "jinja2", "pandas", "datasets", "lightning")

STATE = """
import json, logging, os, random, sys, threading, time, warnings
import numpy, torch

def state():
    return {
        "torch seed": torch.initial_seed(),
        "torch generator": hash(bytes(torch.get_rng_state().tolist())),
        "numpy generator": hash(numpy.random.get_state()[1].tobytes()),
        "random": hash(random.getstate()),
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads(), threading.active_count()],
        "default dtype": str(torch.get_default_dtype()),
        "grad mode": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "benchmark": torch.backends.cudnn.benchmark,
        "root logger": [str(h) for h in logging.root.handlers] + [logging.root.level],
        "library logger": len(logging.getLogger("neuroexapt").handlers),
        "warnings": [str(f) for f in warnings.filters],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "import path": list(sys.path),
        "hooks": [str(sys.excepthook), str(sys.displayhook)],
        "recursion limit": sys.getrecursionlimit(),
    }

before = state()
began = time.process_time()  # what other processes do to the clock on the wall is not ours
import neuroexapt
seconds = time.process_time() - began
everything = [getattr(neuroexapt, name) for name in neuroexapt.__all__]  # names are found on first use
after = state()
print(json.dumps({"before": before, "after": after, "seconds": seconds, "modules": sorted(sys.modules)}))
"""


def measured() -> dict[str, object]:
    done = subprocess.run([sys.executable, "-W", "error", "-c", STATE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    record: dict[str, object] = json.loads(done.stdout)
    return record


@pytest.fixture(scope="module")
def imported():
    return measured()


def test_importing_changes_nothing_global(imported):
    changed = {name: (old, imported["after"][name]) for name, old in imported["before"].items()}
    assert {name: pair for name, pair in changed.items() if pair[0] != pair[1]} == {}


def test_importing_brings_no_library_that_only_data_reports_or_the_command_line_need(imported):
    loaded = {name.partition(".")[0] for name in imported["modules"]}
    assert loaded & set(NOT_AT_IMPORT) == set()


def test_importing_is_quick(imported):
    fastest = imported["seconds"]
    for _ in range(4):  # a busy machine only ever makes it slower
        if fastest <= ALLOWED_SECONDS:
            break
        fastest = min(fastest, measured()["seconds"])
    assert fastest <= ALLOWED_SECONDS
