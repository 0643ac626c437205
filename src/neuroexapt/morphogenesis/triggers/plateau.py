"""Trigger "plateau": the validation loss has stopped falling, as far as its noise lets one see."""

from __future__ import annotations

import math
from statistics import median

from neuroexapt.morphogenesis.triggers.base import ROUNDING, Moment
from neuroexapt.morphogenesis.triggers.theil_sen import theil_sen

CONFIDENCE = 0.8  # two-sided: a flat curve of any noise is missed in at most 10 % of all windows


def plateau(moment: Moment) -> str:
    """Fires at the end of an epoch unless the loss is shown to fall faster than ``plateau_min_slope`` / strictness.

    The loss falls if the upper end of the Theil-Sen interval of its slope, over the last ``plateau_epochs`` epoch ends
    and as a fraction of their median, is below minus that. So a flat curve is told whatever its noise. One of five
    epochs is left alone nine times in ten if it falls by the least and 1.5 standard deviations of its noise more.
    The epochs are those since the latest event: what was before it is another network's.

    A latest loss that is not finite is no fall; one that has become finite within the epochs is one.
    """
    config, length = moment.config, moment.config.plateau_epochs
    oldest = round(moment.position) - (length - 1)  # its epoch end
    if not moment.at_epoch_end or len(moment.losses) < length or oldest < moment.last_event - ROUNDING:
        return ""
    recent = moment.losses[-length:]
    if not all(math.isfinite(loss) for loss in recent):
        return "" if math.isfinite(recent[-1]) else "the validation loss is not finite"
    scale = abs(median(recent)) or 1.0
    slope = theil_sen([loss / scale for loss in recent], CONFIDENCE)
    least = config.plateau_min_slope / moment.strictness
    if slope.high < -least:
        return ""
    return (
        f"the loss changes by {100 * slope.value:+.2f} % an epoch ({100 * slope.low:+.2f} to {100 * slope.high:+.2f})"
    )
