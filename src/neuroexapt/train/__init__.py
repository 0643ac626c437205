"""The owned step: guarded training, trials, checkpoints that survive kills."""

from neuroexapt.train.checkpoint import Checkpoint, load_checkpoint, load_grown, save_checkpoint
from neuroexapt.train.run import check_model
from neuroexapt.train.store import CheckpointStore, read_checkpoint
from neuroexapt.train.trainer import RunResult, Trainer

__all__ = [
    "Checkpoint",
    "CheckpointStore",
    "RunResult",
    "Trainer",
    "check_model",
    "load_checkpoint",
    "load_grown",
    "read_checkpoint",
    "save_checkpoint",
]
