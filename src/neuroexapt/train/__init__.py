"""The owned step: guarded training, trials, checkpoints that survive kills."""

from neuroexapt.train.checkpoint import Checkpoint, load_checkpoint, load_grown, save_checkpoint
from neuroexapt.train.store import CheckpointStore
from neuroexapt.train.trainer import RunResult, Trainer

__all__ = [
    "Checkpoint",
    "CheckpointStore",
    "RunResult",
    "Trainer",
    "load_checkpoint",
    "load_grown",
    "save_checkpoint",
]
