"""What the terminal shows at the end of a run: the figures, and what morphogenesis took."""

from __future__ import annotations

from neuroexapt.events import RunFinished
from neuroexapt.report.quantities import (
    in_bytes,
    in_count,
    in_flops,
    in_flops_range,
    in_number_of,
    in_percent,
    in_time,
)
from neuroexapt.report.spending import memory_in_words, overhead


def closing_block(event: RunFinished) -> list[str]:
    """Returns its lines, each at most 80 columns wide for figures of a usual size."""
    events = f"{in_number_of(event.num_accepted, 'event')} kept, {in_count(event.num_rolled_back)} rolled back"
    first = "done" if event.reason == "completed" else f"stopped: {event.reason}"
    shares = overhead(event)
    of_flops, of_time = ("", "") if shares is None else (f", morphogenesis {in_percent(share)}" for share in shares)
    lines = [
        f"{first}: {events}",
        f"  test accuracy   {in_percent(event.test_accuracy)} (model of epoch {event.chosen_epoch}, "
        f"chosen on validation: {in_percent(event.validation_accuracy)} there)",
        f"  parameters      {in_count(event.num_parameters_start)} -> {in_count(event.num_parameters)}",
        f"  FLOPs a sample  {in_flops_range(event.flops_start, event.flops).replace('→', '->')}",
        f"  compute         {in_flops(event.total_flops)} in all, trials included{of_flops}",
        f"  time            {in_time(event.seconds)}{of_time}",
        f"  memory          {in_bytes(event.peak_memory_bytes)} at the peak",
    ]
    step = memory_in_words(event)
    return [*lines, f"  training step   {step}"] if step else lines
