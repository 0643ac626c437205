"""When to change something."""

from __future__ import annotations

import math

from neuroexapt.config import MorphogenesisConfig
from neuroexapt.morphogenesis.history import History


def why_now(config: MorphogenesisConfig, history: History) -> str:
    """Returns the reason for an event after this epoch, in words, or ``""`` when there is none.

    An event comes every ``interval_epochs``, counted from the beginning or from the end of the latest event, or earlier
    on a plateau: no fall of the validation loss by ``plateau_min_delta`` of the best for ``plateau_epochs``; never
    before ``first_epoch`` or after ``last_epoch``.
    """
    if history.epoch < config.first_epoch or (config.last_epoch is not None and history.epoch > config.last_epoch):
        return ""
    if history.num_accepted >= config.max_events:
        return ""
    since = history.epoch - history.last_event
    if since >= config.interval_epochs:
        return f"every {config.interval_epochs} epochs"
    if since >= config.plateau_epochs and _is_plateau(config, history.losses):
        return f"no progress for {config.plateau_epochs} epochs"
    return ""


def _is_plateau(config: MorphogenesisConfig, losses: list[float]) -> bool:
    recent, earlier = losses[-config.plateau_epochs :], losses[: -config.plateau_epochs]
    if not earlier:
        return False
    best = min(earlier)
    return not math.isfinite(best) or min(recent) > best - config.plateau_min_delta * abs(best)
