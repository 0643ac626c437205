"""One sentence in plain words of what happened in a run."""

from __future__ import annotations

from neuroexapt.report.quantities import in_count, in_number_of, in_percent
from neuroexapt.report.summary import RunSummary


def headline(summary: RunSummary) -> str:
    """Returns what became of the network; a second sentence where the run is not a completed one."""
    start = f"A network of {in_count(summary.num_parameters_start)} parameters"
    return f"{start} {_growth(summary)} and {_result(summary)}.{_caveat(summary)}"


def accepted_in_end(summary: RunSummary) -> int:
    """Counts the accepted edits that the end model contains: a chosen model may be older than the last of them."""
    chosen = summary.finished.chosen_epoch if summary.finished else None
    accepted = [event for event in summary.growth if event.outcome == "accepted"]
    return sum(1 for event in accepted if chosen is None or event.first_epoch <= chosen)


def _growth(summary: RunSummary) -> str:
    num_accepted, num_rolled_back = accepted_in_end(summary), summary.num_rolled_back
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
    later = summary.num_accepted - accepted_in_end(summary)
    tail = ""
    if later:
        tail += (
            f" {in_number_of(later, 'more edit')} had been accepted after epoch {summary.finished.chosen_epoch}, "
            "whose model did best on validation and was chosen."
        )
    if summary.finished.reason != "completed":
        tail += f" The run ended before its last epoch: {summary.finished.reason.rstrip('.')}."
    return tail
