"""How the height and the width of the terminal are shared out."""

from __future__ import annotations

from dataclasses import dataclass

_FIXED = 5  # line of state, two of figures, tabs, keys
_SHORT, _TALL = 28, 44  # heights from which there are charts, and larger ones
_CHART, _LARGE_CHART = 7, 11
_LEAST_TABLE, _LEAST_PANE = 4, 4
# Columns that a chart needs to tell something.
_CHART_WIDTH = 36
_MOST_CHARTS = 3


@dataclass(frozen=True, slots=True)
class Sizes:
    """Lines of the table and of the charts (0: none), and how many charts there are."""

    table: int
    charts: int
    number_of_charts: int


def share_out(width: int, height: int, servers: int, *, charts: bool) -> Sizes:
    """Give the table what it needs, but no more than its part; the pane below gets the rest."""
    lines = 0
    if charts and height >= _SHORT:
        lines = _LARGE_CHART if height >= _TALL else _CHART
    room = max(0, height - _FIXED - lines)
    needed = max(_LEAST_TABLE, servers + 1)
    table = min(needed, max(_LEAST_TABLE, room * 3 // 5), max(2, room - _LEAST_PANE))
    return Sizes(table, lines, min(_MOST_CHARTS, max(1, width // _CHART_WIDTH)))
