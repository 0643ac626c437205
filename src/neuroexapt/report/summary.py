"""What a run amounts to, derived from its events and from nothing else.

The *main line* is the chain of epochs that led to the network there is now. While an edit is on trial the same epochs
are run twice, as control (without it) and as trial (with it). Where the edit was accepted the trial's epochs are on the
main line, where it was rolled back the control's; the others stay with their growth event, as what was not taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from neuroexapt.errors import InputError
from neuroexapt.events import (
    BatchRecovered,
    EpochFinished,
    Event,
    MutationApplied,
    ProposalMade,
    RunFinished,
    RunResumed,
    RunStarted,
    VerdictReached,
)

Outcome = Literal["accepted", "rolled back", "undecided"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowthEvent:
    """One edit from its proposal to its verdict. A field is None where the journal does not say (yet)."""

    number: int  # 1-based, in order
    epoch: int  # the last epoch before the edit
    description: str
    mutations: tuple[dict[str, Any], ...]  # as they are replayed
    outcome: Outcome
    trigger: str | None
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
    predicted_gain: float | None  # nats; None too where the edit was not scored
    measured_gain: float | None  # nats, control loss - trial loss
    control_loss: float | None
    trial_loss: float | None
    added_parameters: int | None
    added_flops: int | None  # forward FLOPs per sample; recounted once applied, before that as predicted
    output_change: float | None  # relative, at the edit
    reason: str | None  # of the verdict
    interval: tuple[float, float] | None  # 95 %, of the relative gain
    trial_steps: int  # of either arm; 0: made untried, or told by epochs only
    discarded_flops: int  # of the arm that was given up; 0 where it is told by epochs
    control: tuple[EpochFinished, ...]
    trial: tuple[EpochFinished, ...]

    @property
    def taken(self) -> tuple[EpochFinished, ...]:
        """The epochs that are on the main line."""
        return self.trial if self.outcome == "accepted" else self.control

    @property
    def not_taken(self) -> tuple[EpochFinished, ...]:
        """The epochs that were run for the comparison only."""
        return self.control if self.outcome == "accepted" else self.trial

    @property
    def first_epoch(self) -> int:
        """The first epoch that was run with the edit, or would have been."""
        return min((e.epoch for e in (*self.control, *self.trial)), default=self.epoch + 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """A whole run. Start is the seed network; end is the chosen model, or the latest one of an unfinished run."""

    started: RunStarted
    finished: RunFinished | None
    main_line: tuple[EpochFinished, ...]  # epochs in order, each once
    growth: tuple[GrowthEvent, ...]
    recoveries: tuple[BatchRecovered, ...]
    num_resumes: int
    num_parameters_start: int
    num_parameters_end: int
    flops_start: int  # forward FLOPs per sample
    flops_end: int
    test_accuracy: float | None  # None until the run has finished
    num_accepted: int
    num_rolled_back: int
    num_undecided: int
    total_flops: int  # everything spent
    not_taken_flops: int  # of these, in epochs that are not on the main line
    seconds: float
    peak_memory_bytes: int


def summarize(events: Sequence[Event]) -> RunSummary:
    """Derives the summary of a run; of several runs in one journal, that of the last.

    Raises:
        InputError: There is no ``RunStarted`` among the events.
    """
    starts = [(i, event) for i, event in enumerate(events) if isinstance(event, RunStarted)]
    if not starts:
        raise InputError(
            f"journal: {len(events)} events, and none says that a run started. "
            "Name the folder of a run that has begun, with its journal from the first line on."
        )
    begin, started = starts[-1]
    story = _Story(started)
    for event in events[begin + 1 :]:
        story.tell(event)
    story.close()
    return _summary_of(story)


@dataclass(slots=True)
class _Open:
    """A growth event that is still being told."""

    proposal: ProposalMade | None = None
    applied: list[MutationApplied] = field(default_factory=list)
    verdict: VerdictReached | None = None
    control: list[EpochFinished] = field(default_factory=list)
    trial: list[EpochFinished] = field(default_factory=list)


@dataclass(slots=True)
class _Story:
    """Reads events in order and keeps what the summary needs."""

    started: RunStarted
    finished: RunFinished | None = None
    main_line: list[EpochFinished] = field(default_factory=list)
    epochs: list[EpochFinished] = field(default_factory=list)
    growth: list[GrowthEvent] = field(default_factory=list)
    recoveries: list[BatchRecovered] = field(default_factory=list)
    num_resumes: int = 0
    open: _Open | None = None

    def tell(self, event: Event) -> None:
        """Takes one event."""
        match event:
            case EpochFinished():
                self._tell_epoch(event)
            case ProposalMade():
                self.close()
                self.open = _Open(proposal=event)
            case MutationApplied():
                self.open = self.open or _Open()
                self.open.applied.append(event)
            case VerdictReached():
                self.open = self.open or _Open()
                self.open.verdict = event
                self.close()
            case BatchRecovered():
                self.recoveries.append(event)
            case RunResumed():
                self.num_resumes += 1
            case RunFinished():
                self.finished = event

    def _tell_epoch(self, event: EpochFinished) -> None:
        self.epochs.append(event)
        if self.open is not None and event.arm == "control":
            self.open.control.append(event)
        elif self.open is not None and event.arm == "trial":
            self.open.trial.append(event)
        else:
            self.close()
            self.main_line.append(event)

    def close(self) -> None:
        """Ends the growth event that is open, if any, and puts the epochs that count on the main line."""
        if self.open is not None:
            self.growth.append(_growth_event(len(self.growth) + 1, self.open))
            self.main_line.extend(self.growth[-1].taken)
            self.open = None


def _growth_event(number: int, told: _Open) -> GrowthEvent:
    proposal, applied, verdict = told.proposal, told.applied, told.verdict
    named = next(event for event in (verdict, proposal, *applied) if event is not None)
    outcome: Outcome = "undecided" if verdict is None else "accepted" if verdict.accepted else "rolled back"
    return GrowthEvent(
        number=number,
        epoch=proposal.epoch if proposal else named.epoch,
        description=named.description,
        mutations=tuple(event.mutation for event in applied) or (tuple(proposal.mutations) if proposal else ()),
        outcome=outcome,
        trigger=proposal.trigger if proposal else None,
        policy=proposal.policy if proposal else None,
        evidence=proposal.evidence if proposal else None,
        evidence_spread=proposal.evidence_spread if proposal else None,
        num_samples=proposal.num_samples if proposal else None,
        score=proposal.score if proposal else None,
        score_flops=proposal.score_flops if proposal else None,
        score_flops_allowed=proposal.score_flops_allowed if proposal else None,
        score_remark=proposal.score_remark if proposal else None,
        num_scored=proposal.num_scored if proposal else None,
        num_candidates=proposal.num_candidates if proposal else None,
        uniform_choice=proposal.uniform_choice if proposal else None,
        evidence_choice=proposal.evidence_choice if proposal else None,
        runners_up=tuple(proposal.runners_up) if proposal else (),
        predicted_gain=_predicted(told),
        measured_gain=verdict.measured_gain if verdict else None,
        control_loss=verdict.control_loss if verdict else None,
        trial_loss=verdict.trial_loss if verdict else None,
        added_parameters=sum(event.parameter_delta for event in applied) if applied else None,
        added_flops=sum(e.flop_delta for e in applied) if applied else proposal.added_flops if proposal else None,
        output_change=max((event.output_change for event in applied), default=None),
        reason=verdict.reason if verdict else None,
        interval=(verdict.low, verdict.high) if verdict else None,
        trial_steps=proposal.trial_steps if proposal else 0,
        discarded_flops=verdict.discarded_flops if verdict else 0,
        control=tuple(told.control),
        trial=tuple(told.trial),
    )


def _predicted(told: _Open) -> float | None:
    if told.proposal is not None and not told.proposal.num_samples:
        return None
    said = told.verdict or told.proposal
    return said.predicted_gain if said else None


def _summary_of(story: _Story) -> RunSummary:
    started, finished, epochs = story.started, story.finished, story.epochs
    latest = story.main_line[-1] if story.main_line else None
    end = finished or latest or started
    outcomes = [event.outcome for event in story.growth]
    return RunSummary(
        started=started,
        finished=finished,
        main_line=tuple(story.main_line),
        growth=tuple(story.growth),
        recoveries=tuple(story.recoveries),
        num_resumes=story.num_resumes,
        num_parameters_start=started.num_parameters,
        num_parameters_end=end.num_parameters,
        flops_start=started.flops,
        flops_end=end.flops,
        test_accuracy=finished.test_accuracy if finished else None,
        num_accepted=outcomes.count("accepted"),
        num_rolled_back=outcomes.count("rolled back"),
        num_undecided=outcomes.count("undecided"),
        total_flops=finished.total_flops if finished else max((e.total_flops for e in epochs), default=0),
        not_taken_flops=_not_taken_flops(story),
        seconds=finished.seconds if finished else sum(e.seconds for e in epochs),
        peak_memory_bytes=finished.peak_memory_bytes if finished else max((e.memory_bytes for e in epochs), default=0),
    )


def _not_taken_flops(story: _Story) -> int:
    """Sums what was given up: as verdicts tell, or in journals of old what each epoch off the main line added."""
    not_taken = {id(epoch) for event in story.growth for epoch in event.not_taken}
    before = 0
    spent = sum(event.discarded_flops for event in story.growth)
    if spent:
        return spent
    for epoch in story.epochs:
        spent += epoch.total_flops - before if id(epoch) in not_taken else 0
        before = epoch.total_flops
    return spent
