"""Typed facts about a run, and the sinks that take them."""

from neuroexapt.events.facts import (
    EVENT_TYPES,
    BatchRecovered,
    CheckpointRejected,
    CheckpointSaved,
    EpochFinished,
    Event,
    MutationApplied,
    ProposalMade,
    RunFinished,
    RunResumed,
    RunStarted,
    VerdictReached,
    event_from_json,
    event_to_json,
)
from neuroexapt.events.sink import EventSink, FanOut

__all__ = [
    "EVENT_TYPES",
    "BatchRecovered",
    "CheckpointRejected",
    "CheckpointSaved",
    "EpochFinished",
    "Event",
    "EventSink",
    "FanOut",
    "MutationApplied",
    "ProposalMade",
    "RunFinished",
    "RunResumed",
    "RunStarted",
    "VerdictReached",
    "event_from_json",
    "event_to_json",
]
