"""One thread a process: results do not depend on the machine, and parallel workers do not fight over cores."""

import torch

torch.set_num_threads(1)
