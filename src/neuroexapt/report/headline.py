"""One sentence in plain words of what happened in a run."""

from __future__ import annotations

from collections.abc import Iterable

from neuroexapt.report.growth import GrowthEvent, Outcome
from neuroexapt.report.quantities import in_count, in_number_of, in_percent
from neuroexapt.report.summary import RunSummary


def headline(summary: RunSummary) -> str:
    """Returns what became of the network; a second sentence where the run is not a completed one."""
    start = f"A network of {in_count(summary.num_parameters_start)} parameters"
    return f"{start} {_growth(summary)} and {_result(summary)}.{_caveat(summary)}"


def accepted_in_end(summary: RunSummary) -> int:
    """Counts the accepted edits that the end model contains: a chosen model may be older than the last of them."""
    chosen = summary.finished.chosen_epoch if summary.finished else None
    return _num_edits(e for e in _with(summary, "accepted") if chosen is None or e.first_epoch <= chosen)


def _with(summary: RunSummary, outcome: Outcome) -> list[GrowthEvent]:
    return [event for event in summary.growth if event.outcome == outcome]


def _num_edits(events: Iterable[GrowthEvent]) -> int:
    """Counts edits, of which an event may try several together."""
    return sum(max(len(event.mutations), 1) for event in events)


def _growth(summary: RunSummary) -> str:
    num_accepted, num_rolled_back = accepted_in_end(summary), _num_edits(_with(summary, "rolled back"))
    rolled_back = f" ({in_count(num_rolled_back)} rolled back)" if num_rolled_back else ""
    if num_accepted:
        verb = "grew to" if summary.num_parameters_end >= summary.num_parameters_start else "shrank to"
        edits = in_number_of(num_accepted, "accepted edit")
        return f"{verb} {in_count(summary.num_parameters_end)} in {edits}{rolled_back}"
    if num_rolled_back:
        return f"tried {in_number_of(num_rolled_back, 'edit')}, kept none"
    return "was trained without an edit"


def _result(summary: RunSummary) -> str:
    if summary.finished is not None:
        return f"reached {in_percent(summary.finished.test_accuracy)} test accuracy, chosen on validation"
    if summary.main_line:
        latest = summary.main_line[-1]
        return f"stands at {in_percent(latest.validation_accuracy)} validation accuracy after epoch {latest.epoch}"
    return "has not finished an epoch yet"


def _caveat(summary: RunSummary) -> str:
    if summary.finished is None:
        return " The run has not finished, so nothing has been tested."
    later = _num_edits(_with(summary, "accepted")) - accepted_in_end(summary)
    tail = ""
    if later:
        tail += (
            f" {in_number_of(later, 'more edit')} had been accepted after epoch {summary.finished.chosen_epoch}, "
            "whose model did best on validation and was chosen."
        )
    if summary.finished.reason != "completed":
        tail += f" The run ended before its last epoch: {summary.finished.reason.rstrip('.')}."
    return tail
