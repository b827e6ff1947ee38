"""Lines of text in tones: what the plain code makes and the widgets paint."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len, set_cell_size

# A piece of text and its tone. Tones are names; the theme gives them colours.
Part = tuple[str, str]
Line = tuple[Part, ...]

TONES = ("plain", "strong", "dim", "good", "warn", "bad", "accent", "second", "heading", "chosen")

EMPTY: Line = ()

# Names of servers are cut beyond this width where more stands behind them.
LONGEST_NAME = 24


def plain(text: str, tone: str = "plain") -> Line:
    return ((text, tone),)


def width_of(line: Line) -> int:
    """Return how many columns of the terminal a line takes."""
    # Most is ASCII, which is measured three times as fast: lists have thousands of parts.
    return sum(len(text) if text.isascii() else cell_len(text) for text, _ in line)


def widest(texts: Iterable[str], most: int) -> int:
    """Return the width of a column for these texts, `most` at most."""
    return min(most, max(map(cell_len, texts), default=0))


def cut(text: str, width: int) -> str:
    """Cut a text in its middle: the ends of names tell most."""
    if width < 1:
        return ""
    if cell_len(text) <= width:
        return text
    head = (width - 1) // 2
    tail = width - 1 - head
    left = set_cell_size(text, head)
    right = text[-tail:] if tail else ""
    while cell_len(right) > tail:
        right = right[1:]
    return f"{left}…{right}"


def fit(line: Line, width: int, *, right: bool = False) -> Line:
    """Bring a line to exactly `width` columns; what is too long is cut at its end."""
    missing = width - width_of(line)
    if missing >= 0:
        gap = ((" " * missing, "plain"),) if missing else ()
        return (*gap, *line) if right else (*line, *gap)
    kept: list[Part] = []
    left = width
    for text, tone in line:
        size = cell_len(text)
        if size >= left:
            shown = text if size == left else f"{set_cell_size(text, max(0, left - 1))}…"
            kept.append((shown, tone))
            break
        kept.append((text, tone))
        left -= size
    return tuple(kept) if width > 0 else ()


def cell(text: str, width: int, tone: str = "plain") -> Line:
    """Return a text in a column of this width, cut in its middle."""
    return fit(plain(cut(text, width), tone), width)


def spread(left: Line, right: Line, width: int) -> Line:
    """Put one line to the left and one to the right; the left one gives way."""
    room = max(0, width - width_of(right))
    return (*fit(left, room), *fit(right, width - room))
