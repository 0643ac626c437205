"""Thresholds that follow the measured success of what they led to."""

from __future__ import annotations

import math

LEAST, MOST = 1 / 8, 8.0  # so that a trigger can neither fire all the time nor be silent for good


def adapted(strictness: float, success: bool, rate: float, target: float) -> float:
    """Returns a trigger's strictness after one more event: more after a roll-back, less after a success.

    The Robbins-Monro step ``ln s += rate (target - success)`` with a constant rate (Robbins & Monro 1951), which is the
    success rule of evolution strategies (Rechenberg 1973; in this form Kern et al. 2004). Its fixed point is the
    strictness at which the share of successes equals ``target``; with a constant rate it hovers about that point, at
    a distance of order ``sqrt(rate)``.

    Args:
        strictness: So far, in [LEAST, MOST]; 1 at the beginning.
        success: Whether the event ended with an edit kept.
        rate: How fast, >= 0; 0 leaves the strictness as it is.
        target: Share of successes, in [0, 1).
    """
    return min(max(strictness * math.exp(rate * (target - success)), LEAST), MOST)
