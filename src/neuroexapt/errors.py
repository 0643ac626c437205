"""The one error tree of the library.

Every message says *where: what was found, what was needed. What to do.* A caller that wants to survive bad input
catches ``NeuroExaptError``; the command line turns it into one sentence and exit code 2 (``InputError``) or 3.
"""

from __future__ import annotations


class NeuroExaptError(Exception):
    """Base of every error that this library raises on purpose."""


class InputError(NeuroExaptError):
    """What the user handed over cannot be used; nothing has been written or changed."""


class ConfigError(InputError):
    """A configuration has an unknown key, a value of the wrong type or one out of range."""


class DataError(InputError):
    """A data set is missing, unreadable or inconsistent; the message names the row or file."""


class ModelError(InputError):
    """The user's model cannot be built or its ``forward`` fails; the message shows the model's own error."""


class TraceError(ModelError):
    """The model's ``forward`` could not be run on fake tensors, so there is no graph to work on."""


class SurgeryError(NeuroExaptError):
    """An edit was refused or failed verification; model and optimizer are as they were before it."""


class BudgetError(SurgeryError):
    """An edit would exceed the budget; it was refused before anything was allocated."""


class CheckpointError(InputError):
    """A checkpoint is damaged, incomplete or does not fit the model it is loaded into."""


class TrainingError(NeuroExaptError):
    """Training cannot go on; the run has been saved up to its last checkpoint."""


class Interrupted(TrainingError):
    """The user or the system asked the run to stop; it has been saved up to its last checkpoint."""


class OutOfMemoryError(TrainingError):
    """A step does not fit into memory even with the smallest micro-batch."""


class NonFiniteLossError(TrainingError):
    """Too many batches in a row gave a loss or gradient that is NaN or infinite."""


class NonFiniteActivationError(NeuroExaptError):
    """An activation or a gradient inside the model is NaN or infinite; the message names the layer."""
