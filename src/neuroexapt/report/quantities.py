"""Numbers as people read them, each with its unit; report and terminal say the same quantity the same way."""

from __future__ import annotations

import math

_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_GIB = 3
_DECIMAL_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def in_count(number: int) -> str:
    """Returns a whole number with thousands separated: ``12,345``."""
    return f"{number:,}"


def in_change(number: int) -> str:
    """Returns a whole number with its sign: ``+936``."""
    return f"{number:+,}"


def in_percent(fraction: float) -> str:
    """Returns a fraction in [0, 1] as ``97.8 %``."""
    return f"{100 * fraction:.1f} %"


def in_signed_percent(fraction: float) -> str:
    """Returns a gain as a share, with three digits at most: ``+7.8 %``, ``-0.05 %``, ``+31 %``."""
    return f"{_signed(100 * fraction)} %"


def in_interval(low: float, high: float) -> str:
    """Returns the ends of an interval of fractions: ``+5.1 to +10 %``."""
    return f"{_signed(100 * low)} to {_signed(100 * high)} %"


def _signed(percent: float) -> str:
    digits = 0 if abs(percent) >= 9.95 else 1 if abs(percent) >= 0.995 else 2
    return f"{percent:+.{digits}f}"


def in_relative_change(change: float, base: float) -> str:
    """Returns a change as a share of ``base``: ``+12 %``; one decimal below 10 %; ``+0.0 %`` where the base is 0."""
    share = 100 * change / base if base else 0.0
    return f"{share:+.0f} %" if abs(share) >= 10 else f"{share:+.1f} %"


def decimal_scale(number: float) -> tuple[float, str]:
    """Returns the power of a thousand that suits ``number``, and its SI prefix."""
    return next(((size, prefix) for size, prefix in _DECIMAL_PREFIXES if abs(number) >= size), (1.0, ""))


def in_flops(flops: float) -> str:
    """Returns floating-point operations with three digits: ``1.23 GFLOP``."""
    rounded = float(f"{flops:.3g}")  # first, so that 999,900 is not 1000 k but 1 M
    scale, prefix = decimal_scale(rounded)
    return f"{rounded / scale:.3g} {prefix}FLOP"


def in_flops_range(start: float, end: float) -> str:
    """Returns two amounts of floating-point operations, the unit said once where it is the same."""
    first, last = in_flops(start), in_flops(end)
    number, _, unit = first.partition(" ")
    return f"{number if last.endswith(' ' + unit) else first} → {last}"


def in_bytes(num_bytes: int) -> str:
    """Returns a size in the largest binary unit that it fills: ``256 B``, ``3.5 KiB``, ``534 MiB``, ``1.5 GiB``."""
    size, unit = float(num_bytes), 0
    while size >= 1023.5 and unit < len(_BINARY_UNITS) - 1:  # what would be shown as 1,024
        size, unit = size / 1024, unit + 1
    digits = 1 if unit and (size < 9.95 or unit >= _GIB) else 0
    return f"{size:,.{digits}f} {_BINARY_UNITS[unit]}"


def in_time(seconds: float) -> str:
    """Returns a duration in its two largest units: ``4.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if not math.isfinite(seconds):
        return "unknown time"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def in_loss(loss: float) -> str:
    """Returns a loss in nats with three decimals."""
    return f"{loss:.3f}"


def in_gain(gain: float) -> str:
    """Returns a gain in nats with its sign; below 0.0005 in powers of ten, so that small never reads as nothing."""
    if gain == 0:
        return "0"
    return f"{gain:+.1e}" if abs(gain) < 5e-4 else f"{gain:+.3f}"


def in_magnitude(value: float) -> str:
    """Returns a value whose order of magnitude matters: ``1.2e-07``, and plain ``0`` where it is exactly that."""
    return "0" if value == 0 else f"{value:.1e}"


def in_number_of(number: int, singular: str, plural: str | None = None) -> str:
    """Returns a count with its noun: ``1 edit``, ``5 edits``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
