"""What a run amounts to, derived from its events and from nothing else.

The *main line* is the chain of epochs that led to the network there is now. While edits are on trial the same steps are
run twice, as control (without them) and as trial (with them). Where an epoch ends within an arm, it is told for either:
where the edits were accepted the trial's epochs are on the main line, where they were rolled back the control's; the
others stay with their growth event, as what was not taken. Shorter arms leave no epoch of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
from neuroexapt.report.growth import GrowthEvent, Told, growth_event


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
    not_taken_flops: int  # of these, in arms of trials that are not on the main line
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
class _Story:
    """Reads events in order and keeps what the summary needs."""

    started: RunStarted
    finished: RunFinished | None = None
    main_line: list[EpochFinished] = field(default_factory=list)
    epochs: list[EpochFinished] = field(default_factory=list)
    growth: list[GrowthEvent] = field(default_factory=list)
    recoveries: list[BatchRecovered] = field(default_factory=list)
    num_resumes: int = 0
    open: Told | None = None

    def tell(self, event: Event) -> None:
        """Takes one event."""
        match event:
            case EpochFinished():
                self._tell_epoch(event)
            case ProposalMade():
                self.close()
                self.open = Told(proposal=event)
            case MutationApplied():
                self.open = self.open or Told()
                self.open.applied.append(event)
            case VerdictReached():
                self.open = self.open or Told()
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
            self.growth.append(growth_event(len(self.growth) + 1, self.open))
            self.main_line.extend(self.growth[-1].taken)
            self.open = None


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
    spent = sum(event.discarded_flops for event in story.growth)
    if spent:
        return spent
    not_taken = {id(epoch) for event in story.growth for epoch in event.not_taken}
    before = 0
    for epoch in story.epochs:
        spent += epoch.total_flops - before if id(epoch) in not_taken else 0
        before = epoch.total_flops
    return spent
