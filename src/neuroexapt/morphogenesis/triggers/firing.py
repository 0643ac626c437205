"""Which trigger fires: the gates that all of them pass, then the first that has a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from neuroexapt.config import MorphogenesisConfig
from neuroexapt.morphogenesis.triggers.base import ROUNDING, Moment
from neuroexapt.morphogenesis.triggers.registry import TRIGGERS


@dataclass(frozen=True, slots=True)
class Firing:
    """A trigger, by its name in ``TRIGGERS``, and its reason in words."""

    trigger: str
    reason: str


def why_now(
    moment: Moment, strictness: Mapping[str, float], *, num_accepted: int = 0, seconds: float = 0.0
) -> Firing | None:
    """Returns the first of ``triggers`` that fires, or ``None``.

    No event begins before ``first_epoch``, after ``last_epoch``, with ``max_events`` kept, or after ``max_seconds``;
    and none within ``cooldown_epochs``, times the strictness of the trigger, after one has ended. A trigger that may
    not fire is not asked, so that nothing is measured in vain.

    Args:
        moment: With any strictness; each trigger is asked with its own.
        strictness: Of each trigger by name; 1 where there is none.
        num_accepted: Events so far that ended with an edit kept.
        seconds: Wall time of the run so far.
    """
    config = moment.config
    if not _is_open(config, moment.position) or num_accepted >= config.max_events:
        return None
    if config.max_seconds is not None and seconds >= config.max_seconds:
        return None
    for name in config.triggers:
        own = replace(moment, strictness=strictness.get(name, 1.0))
        if moment.last_event and not moment.has_passed(config.cooldown_epochs * own.strictness):
            continue
        if reason := TRIGGERS[name](own):
            return Firing(name, reason)
    return None


def _is_open(config: MorphogenesisConfig, position: float) -> bool:
    last = config.last_epoch
    return position >= config.first_epoch - ROUNDING and (last is None or position <= last + ROUNDING)
