"""Trigger "schedule": an event at each of the positions that were asked for."""

from __future__ import annotations

from neuroexapt.morphogenesis.triggers.base import ROUNDING, Moment


def schedule(moment: Moment) -> str:
    """Fires when a position of ``schedule_epochs`` is due and has had no event.

    A position that could not have its event in time, for a trial was under way, the network was cooling down, or it was
    before ``first_epoch``, is made up at the next moment that admits one. It has had its event when one ended after it
    and there have been as many events as positions, whatever fired them. Strictness moves no position, it lengthens
    the cool-down between those that lie close.
    """
    due = [epochs for epochs in moment.config.schedule_epochs if epochs <= moment.position + ROUNDING]
    if not due:
        return ""
    is_new = max(due) > moment.last_event + ROUNDING
    return f"scheduled at {max(due):g} epochs" if is_new or len(due) > moment.num_events else ""
