"""What can happen in a run, as frozen values.

The trainer and the morphogenesis engine send these to a sink; journal, report and progress display read them and never
the trainer. An event goes to JSON as ``{"event": class name, ...fields}`` and back without loss.
Losses are mean cross-entropy in nats, accuracies and fractions lie in [0, 1], FLOPs count a multiply-add as two.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from neuroexapt.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Base of all facts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStarted(Event):
    """A run begins from its seed network."""

    command: str
    seed: int
    device: str
    model: str
    data: str
    num_train: int
    num_validation: int
    num_test: int
    num_parameters: int
    flops: int  # forward FLOPs per sample of the seed network
    config: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochFinished(Event):
    """One pass over the training data ended. ``arm`` says for what it was run: main, control or trial."""

    epoch: int  # 1-based; a trial repeats the epochs of its control
    arm: str
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    num_parameters: int
    flops: int  # forward FLOPs per sample now
    total_flops: int  # everything spent so far: training, evaluation, evidence, trials
    seconds: float
    learning_rate: float
    widths: dict[str, int]  # size of every channel group by name
    num_layers: int  # weight layers
    memory_bytes: int  # resident set of the process


@dataclass(frozen=True, kw_only=True, slots=True)
class ProposalMade(Event):
    """A trigger fired and the policy suggested an edit."""

    epoch: int
    trigger: str  # why now, in words
    policy: str
    description: str
    predicted_gain: float  # expected fall of the validation loss against the control, nats
    evidence: float  # growth score of the choice; its unit depends on the score
    evidence_spread: float  # its standard error
    num_samples: int  # that the choice was scored on; 0: it was not
    added_flops: int  # forward FLOPs per sample that it would add
    uniform_choice: str  # what the uniform baseline would do
    evidence_choice: str = ""  # what most evidence per added FLOP would do
    num_candidates: int
    num_scored: int | None = None  # candidates that have a score; null in journals of old
    runners_up: list[
        dict[str, Any]
    ]  # {description, evidence, added_flops, score}, best first, at most 5; not scored: null
    score: str = ""  # name of the growth score, "" where there were no data
    score_flops: int = 0  # that scoring all candidates took, counted
    score_flops_allowed: int = 0  # share of the training FLOPs since candidates were last scored
    score_remark: str = ""  # why nothing was scored
    position: float = math.nan  # in fractions of epochs
    mutations: list[dict[str, Any]] = field(default_factory=list)  # the edits that are tried together
    trial_steps: int = 0  # of either arm; 0: made untried, or a journal of old
    strictness: dict[str, float] = field(default_factory=dict)  # of every trigger that led to an event


@dataclass(frozen=True, kw_only=True, slots=True)
class MutationApplied(Event):
    """An edit was made and verified."""

    epoch: int
    mutation: dict[str, Any]
    description: str
    output_change: float  # measured, relative, worst of eval and train mode
    parameter_delta: int
    flop_delta: int  # forward FLOPs per sample
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class VerdictReached(Event):
    """A trial ended: the edit stays or is rolled back."""

    epoch: int
    accepted: bool
    description: str
    predicted_gain: float
    measured_gain: float  # control loss - trial loss on the validation split, nats
    control_loss: float
    trial_loss: float
    reason: str
    position: float = math.nan  # in fractions of epochs
    mutations: list[dict[str, Any]] = field(default_factory=list)
    relative_gain: float = math.nan  # measured gain over the control's loss
    low: float = math.nan  # its 95 % interval, from the paired losses of the validation samples
    high: float = math.nan
    needed: float = math.nan  # the relative gain has to be more than this: for cost, risk and min_gain
    cost: float = math.nan  # 1/2 ln of the ratio of FLOPs + 1/2 ln of that of parameters, with the edits to without
    trial_steps: int = 0  # of either arm
    discarded_flops: int = 0  # of the arm that was given up


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchRecovered(Event):
    """The guarded step met a fault and dealt with it."""

    epoch: int
    step: int
    fault: str
    action: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointSaved(Event):
    """The run can go on from here after a kill."""

    epoch: int
    path: str
    is_best: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointRejected(Event):
    """A checkpoint did not verify and was passed over."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResumed(Event):
    """A run goes on from a checkpoint."""

    epoch: int
    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFinished(Event):
    """The end: the model chosen on the validation split, measured once on the test split."""

    reason: str  # "completed" or what stopped it
    chosen_epoch: int
    validation_loss: float
    validation_accuracy: float
    test_loss: float
    test_accuracy: float
    num_parameters: int
    flops: int
    num_parameters_start: int
    flops_start: int
    total_flops: int
    num_accepted: int
    num_rolled_back: int
    seconds: float
    peak_memory_bytes: int
    flops_by_purpose: dict[str, int] = field(default_factory=dict)  # see morphogenesis.Ledger
    seconds_by_purpose: dict[str, float] = field(default_factory=dict)
    predicted_bytes: int = 0  # of a training step of the model at the end, on fakes
    measured_bytes: int = 0  # by which the process grew since the run began; on CUDA, the allocator's peak


EVENT_TYPES: dict[str, type[Event]] = {
    cls.__name__: cls
    for cls in (
        RunStarted,
        EpochFinished,
        ProposalMade,
        MutationApplied,
        VerdictReached,
        BatchRecovered,
        CheckpointSaved,
        CheckpointRejected,
        RunResumed,
        RunFinished,
    )
}


def event_to_json(event: Event) -> dict[str, Any]:
    """Returns the event as a JSON-ready dictionary that names its class under ``event``."""
    return {"event": type(event).__name__, **asdict(event)}


def event_from_json(record: dict[str, Any]) -> Event:
    """Rebuilds an event; keys that the class does not know (a journal's time stamp) are ignored.

    Raises:
        InputError: The record names no known event or lacks a field.
    """
    cls = EVENT_TYPES.get(str(record.get("event")))
    if cls is None:
        raise InputError(f"journal: unknown event {record.get('event')!r}; known are {', '.join(EVENT_TYPES)}.")
    known = {f.name for f in fields(cls)}
    try:
        return cls(**{key: value for key, value in record.items() if key in known})
    except TypeError as error:
        raise InputError(f"journal: {cls.__name__}: {error}. The journal was written by another version.") from error
