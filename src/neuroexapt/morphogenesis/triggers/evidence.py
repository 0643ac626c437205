"""Trigger "evidence": some layer needs a change more than others do."""

from __future__ import annotations

from neuroexapt.morphogenesis.triggers.base import Moment


def evidence(moment: Moment) -> str:
    """Fires when the highest need is at or above ``need_threshold``, which strictness moves towards 1.

    Needed is ``1 - (1 - need_threshold) / strictness``, and never less than ``need_threshold``, below which no edit is
    proposed. Asked for at the end of an epoch only, since measuring needs costs FLOPs.
    """
    if not moment.at_epoch_end:
        return ""
    threshold = moment.config.need_threshold
    needed = max(threshold, 1 - (1 - threshold) / moment.strictness)
    need = moment.highest_need()
    return f"a need of {need:.2f}, at least {needed:.2f}" if need >= needed else ""
