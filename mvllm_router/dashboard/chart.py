"""Line charts of braille signs: each sign has two columns and four rows of dots."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mvllm_router.dashboard.lines import Line, Part

Values = Sequence["float | None"]

_BLANK = 0x2800
# The bit of each dot of a sign, by row and column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def ceiling(values: Sequence[Values], least: float) -> float:
    """Return a round number (1, 2 or 5 and zeros) that none of the values is above.

    `least` is returned where all are below it, so that noise around nothing stays low.
    """
    top = max((value for line in values for value in line if value is not None), default=0.0)
    if top <= least:
        return least
    power = 10.0 ** math.floor(math.log10(top))
    return next(step * power for step in (1, 2, 5, 10) if top <= step * power * (1 + 1e-9))


def plot(
    values: Sequence[Values], tones: Sequence[str], size: tuple[int, int], top: float
) -> list[Line]:
    """Draw lines from left to right, later ones above earlier ones.

    Args:
        values: for each line two values for each column of signs, oldest first; None is a gap.
        tones: of each line.
        size: columns and rows, in signs.
        top: the value of the uppermost dot; the lowest one is 0.
    """
    width, height = size
    bits = [[0] * width for _ in range(height)]
    owner = [[0] * width for _ in range(height)]
    for index, line in enumerate(values):
        last: int | None = None
        for x, value in enumerate(line[: 2 * width]):
            level = None if value is None else _level(value, top, height)
            if level is not None:
                for y in _between(last, level):
                    row = height - 1 - y // 4
                    bits[row][x // 2] |= _DOTS[3 - y % 4][x % 2]
                    owner[row][x // 2] = index
            last = level
    return [_runs(*row, tones) for row in zip(bits, owner, strict=True)]


def _level(value: float, top: float, height: int) -> int:
    """Return the row of dots of a value, 0 for the lowest."""
    part = min(1.0, max(0.0, value / top))
    return round(part * (4 * height - 1))


def _between(last: int | None, level: int) -> range:
    """Return the dots that join a value to the one before it."""
    if last is None or last == level:
        return range(level, level + 1)
    return range(last + 1, level + 1) if last < level else range(level, last)


def _runs(bits: Sequence[int], owner: Sequence[int], tones: Sequence[str]) -> Line:
    """Join signs of one tone to one piece of text: the fewer pieces, the quicker it is painted."""
    parts: list[Part] = []
    text, tone = "", ""
    for bit, index in zip(bits, owner, strict=True):
        shown = tones[index] if bit else tone or tones[0]
        if shown != tone and text:
            parts.append((text, tone))
            text = ""
        tone = shown
        text += chr(_BLANK + bit) if bit else " "
    return (*parts, (text, tone)) if text else tuple(parts)
