"""One thread a process: results do not depend on the machine, and parallel workers do not fight over cores.

And a garbage collector that does not walk over the imported modules again and again.
"""

import gc

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Sets the objects apart that stay; with the modules of all tests loaded a full collection took half a second."""
    gc.collect()
    gc.freeze()
