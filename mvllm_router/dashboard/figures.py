"""Writes numbers as people read them, in a width that hardly changes."""

from __future__ import annotations

from datetime import datetime

from mvllm_router.dashboard.document import NOTHING

_STEPS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_LAST_SECOND = 2.5e11  # in the year 9892: the calendar ends soon after
_EIGHTHS = "▏▎▍▌▋▊▉"


def compact(value: float | None) -> str:
    """Return at most five signs: `0`, `4.2`, `187`, `2.6k`, `18.2k`, `1.9M`."""
    if value is None:
        return NOTHING
    for step, unit in _STEPS:
        if value >= step * 0.99995:
            short = value / step
            return f"{short:.0f}{unit}" if short >= 99.95 else f"{short:.1f}{unit}"
    return f"{value:.0f}" if value >= 99.95 or value == int(value) else f"{value:.1f}"


def rate(value: float | None) -> str:
    """Return a rate: always with one decimal below a hundred, so that it does not change width."""
    if value is not None and value < 99.95:
        return f"{value:.1f}"
    return compact(value)


def whole(value: float | None) -> str:
    """Return a count of things."""
    return NOTHING if value is None else f"{value:.0f}"


def decimal(value: float | None) -> str:
    """Return a number with two decimals; with three where these would be 0.00."""
    if value is None:
        return NOTHING
    return f"{value:.3f}" if 0 < value < 0.005 else f"{value:.2f}"


def size(value: float | None) -> str:
    """Return bytes as `812 MiB` or `70.3 GiB`."""
    if value is None:
        return NOTHING
    mebibytes = value / 2**20
    return f"{mebibytes:.0f} MiB" if mebibytes < 1023.5 else f"{mebibytes / 2**10:.1f} GiB"


def share(value: float | None) -> str:
    """Return a part of one as `58%`."""
    return NOTHING if value is None else f"{value * 100:.0f}%"


def milliseconds(seconds: float | None) -> str:
    """Return a time for a narrow column: milliseconds, and `12.3s` from ten seconds on."""
    if seconds is None:
        return NOTHING
    return f"{seconds * 1000:.0f}" if seconds < 9.9995 else f"{seconds:.1f}s"


def latency(seconds: float | None) -> str:
    """Return a time with its unit: `63 ms`, `1.20 s`."""
    if seconds is None:
        return NOTHING
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.2f} s"


def round_time(seconds: float) -> str:
    """Return a round time for a scale: `0`, `50ms`, `2.5s`."""
    if not seconds:
        return "0"
    return f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"


def round_number(value: float) -> str:
    """Return a round number for a scale: `0`, `250`, `2.5k`."""
    for step, unit in _STEPS:
        if value >= step:
            return f"{value / step:g}{unit}"
    return f"{value:g}"


def age(seconds: float | None) -> str:
    """Return for how long something has been so: `0.4s`, `12s`, `3m`, `2h`, `5d`."""
    if seconds is None:
        return NOTHING
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    for step, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= step:
            return f"{seconds // step:.0f}{unit}"
    return f"{seconds:.0f}s"


def span(seconds: float | None) -> str:
    """Return a long time in two units: `2h 13m`."""
    if seconds is None:
        return NOTHING
    minutes, left = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h"
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {left:02}s" if minutes else f"{left}s"


def clock(at: float | None) -> str:
    """Return wall-clock seconds as the local time of day."""
    if at is None or not 0 <= at < _LAST_SECOND:
        return NOTHING
    return datetime.fromtimestamp(at).strftime("%H:%M:%S")


def bar(part: float, width: int) -> tuple[str, str]:
    """Return how far a bar of `width` signs is filled, and the rest of it, in eighths of a sign."""
    eighths = round(min(1.0, max(0.0, part)) * width * 8)
    full, more = divmod(eighths, 8)
    filled = "█" * full + (_EIGHTHS[more - 1] if more else "")
    return filled, "·" * (width - len(filled))
