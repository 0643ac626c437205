"""One growth event, from its proposal to its verdict, put together from what a journal tells of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from neuroexapt.events import EpochFinished, MutationApplied, ProposalMade, VerdictReached

Outcome = Literal["accepted", "rolled back", "undecided"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowthEvent:
    """What was tried together and kept or rolled back together. None where the journal does not say (yet).

    Relative gains are fractions of the loss of the control, the arm without the edits.
    """

    number: int  # 1-based, in order
    epoch: int  # the last one that had ended before
    position: float  # where the arms of the trial began, in fractions of epochs
    description: str
    edits: tuple[str, ...]  # in words, in the order in which they were made
    mutations: tuple[dict[str, Any], ...]  # as they are replayed
    outcome: Outcome
    trigger: str | None
    strictness: dict[str, float]  # of every trigger that had led to an event by then
    policy: str | None
    evidence: float | None
    evidence_spread: float | None
    num_samples: int | None
    score: str | None  # name of the growth score
    score_flops: int | None
    score_flops_allowed: int | None
    score_remark: str | None  # why nothing was scored
    num_scored: int | None
    num_candidates: int | None
    uniform_choice: str | None
    evidence_choice: str | None
    runners_up: tuple[dict[str, Any], ...]
    predicted_gain: float | None  # nats; None too where nothing was scored
    measured_gain: float | None  # nats, control loss - trial loss; None too where nothing was measured
    relative_gain: float | None
    interval: tuple[float, float] | None  # 95 %, of the relative gain
    needed: float | None  # what the relative gain had to be more than
    cost: float | None  # 1/2 ln of the ratio of FLOPs + 1/2 ln of that of parameters
    control_loss: float | None
    trial_loss: float | None
    added_parameters: int | None
    added_flops: int | None  # forward FLOPs per sample; recounted once applied, before that as predicted
    output_change: float | None  # relative, at the edit
    reason: str | None  # of the verdict
    trial_steps: int  # of either arm; 0: made untried, or told by epochs only
    discarded_flops: int  # of the arm that was given up; 0 where it is told by epochs
    control: tuple[EpochFinished, ...]
    trial: tuple[EpochFinished, ...]

    @property
    def taken(self) -> tuple[EpochFinished, ...]:
        """The epochs of its arms that are on the main line; none where the arms are shorter than an epoch."""
        return self.trial if self.outcome == "accepted" else self.control

    @property
    def not_taken(self) -> tuple[EpochFinished, ...]:
        """The epochs that were run for the comparison only."""
        return self.control if self.outcome == "accepted" else self.trial

    @property
    def first_epoch(self) -> int:
        """The first epoch that ended with the edits, or would have."""
        return min((e.epoch for e in (*self.control, *self.trial)), default=self.epoch + 1)

    @property
    def relative_prediction(self) -> float | None:
        """The predicted gain as a fraction of the control's loss."""
        return _relative(self.predicted_gain, self.control_loss)


@dataclass(slots=True)
class Told:
    """A growth event that is still being told."""

    proposal: ProposalMade | None = None
    applied: list[MutationApplied] = field(default_factory=list)
    verdict: VerdictReached | None = None
    control: list[EpochFinished] = field(default_factory=list)
    trial: list[EpochFinished] = field(default_factory=list)


def growth_event(number: int, told: Told) -> GrowthEvent:
    """Returns the ``number``-th event of a run as far as it has been told; something of it must have been."""
    proposal, applied, verdict = told.proposal, told.applied, told.verdict
    named = next(event for event in (verdict, proposal, *applied) if event is not None)
    outcome: Outcome = "undecided" if verdict is None else "accepted" if verdict.accepted else "rolled back"
    position = _known(proposal.position) if proposal else None
    epoch = proposal.epoch if proposal else named.epoch
    return GrowthEvent(
        number=number,
        epoch=epoch,
        position=float(epoch) if position is None else position,
        description=named.description,
        edits=tuple(event.description for event in applied) or (named.description,),
        mutations=tuple(event.mutation for event in applied) or (tuple(proposal.mutations) if proposal else ()),
        outcome=outcome,
        **_of_proposal(proposal),
        **_of_verdict(verdict),
        predicted_gain=_predicted(told),
        added_parameters=sum(event.parameter_delta for event in applied) if applied else None,
        added_flops=sum(e.flop_delta for e in applied) if applied else proposal.added_flops if proposal else None,
        output_change=max((event.output_change for event in applied), default=None),
        control=tuple(told.control),
        trial=tuple(told.trial),
    )


def _of_proposal(proposal: ProposalMade | None) -> dict[str, Any]:
    same = (
        "trigger policy evidence evidence_spread num_samples score score_flops score_flops_allowed score_remark "
        "num_scored num_candidates uniform_choice evidence_choice"
    ).split()
    return {name: getattr(proposal, name) if proposal else None for name in same} | {
        "runners_up": tuple(proposal.runners_up) if proposal else (),
        "strictness": dict(proposal.strictness) if proposal else {},
        "trial_steps": proposal.trial_steps if proposal else 0,
    }


def _of_verdict(verdict: VerdictReached | None) -> dict[str, Any]:
    names = ("measured_gain", "relative_gain", "needed", "cost", "control_loss", "trial_loss")
    found: dict[str, Any] = {name: _known(getattr(verdict, name)) if verdict else None for name in names}
    if found["relative_gain"] is None:  # a journal of old tells nats only
        found["relative_gain"] = _relative(found["measured_gain"], found["control_loss"])
    has_interval = verdict is not None and verdict.low < verdict.high
    return found | {
        "interval": (verdict.low, verdict.high) if verdict and has_interval else None,
        "reason": verdict.reason if verdict else None,
        "discarded_flops": verdict.discarded_flops if verdict else 0,
    }


def _predicted(told: Told) -> float | None:
    """Takes the proposal's word first: in journals of old, a verdict's has learnt from the outcome."""
    if told.proposal is not None:
        return told.proposal.predicted_gain if told.proposal.num_samples else None
    return told.verdict.predicted_gain if told.verdict else None


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _relative(gain: float | None, loss: float | None) -> float | None:
    return None if gain is None or not loss or not math.isfinite(loss) else gain / abs(loss)
