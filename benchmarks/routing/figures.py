"""What the calls of a run come to: times, goodput, hits, spread; and the table of it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

from client import Call
from fleet import Counts
from medians import Figures, Summary

NOTICED = 10.0  # seconds in which a change should be noticed


@dataclass(frozen=True)
class Window:
    """What is counted of a run.

    Attributes:
        seconds: how long requests are counted, from 0 on.
        slo: longest good time to the first token, in seconds.
        change: when a server became slower, if it did.
    """

    seconds: float
    slo: float
    change: float | None = None


def figures(calls: Sequence[Call], counts: Sequence[Counts], window: Window) -> Figures:
    """Work out the figures of one run from its calls and what each server has counted."""
    counted = [call for call in calls if call.request.due >= 0]
    good = [call for call in counted if not call.error and _first(call) <= window.slo]
    looked_up = sum(each.looked_up for each in counts)
    found = sum(each.found for each in counts)
    return {
        **_times("ttft", map(_first, _started(counted))),
        **_times("e2e", (call.ended - call.due for call in counted if not call.error)),
        "goodput": len(good) / window.seconds,
        "done": sum(map(_is_done_in, calls, repeat(window))) / window.seconds,
        "hits": 100 * found / looked_up if looked_up else 0.0,
        "requests": len(counted),
        "errors": sum(bool(call.error) for call in counted),
        "late p99": 1e3 * _part(sorted(call.sent - call.due for call in counted), 0.99),
        **_spread(counts),
        **_phases(counted, window),
    }


def _started(calls: Iterable[Call]) -> list[Call]:
    """Return those whose wait is known, or known to be so long at least."""
    return [call for call in calls if call.first or call.error == "no end"]


def _first(call: Call) -> float:
    """Return the seconds until the first token, from when the request was due."""
    return (call.first or call.ended) - call.due


def _is_done_in(call: Call, window: Window) -> bool:
    """Tell whether a call came to a good end while it was counted, whenever it was due."""
    ended = call.request.due + call.ended - call.due
    return not call.error and 0 <= ended < window.seconds


def _times(name: str, seconds: Iterable[float]) -> Figures:
    values = sorted(1e3 * value for value in seconds)
    if not values:
        values = [float("nan")]
    return {
        f"{name} mean": statistics.fmean(values),
        f"{name} p50": _part(values, 0.5),
        f"{name} p99": _part(values, 0.99),
    }


def _part(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


def _spread(counts: Sequence[Counts]) -> Figures:
    every = sum(each.made for each in counts) or 1.0
    return {f"server {n} %": 100 * each.made / every for n, each in enumerate(counts, 1)}


def _phases(calls: Sequence[Call], window: Window) -> Figures:
    if window.change is None:
        return {}
    change, end = window.change, window.seconds
    phases = {"before": (0.0, change), "soon": (change, change + NOTICED)}
    if change + NOTICED < end:
        phases["later"] = (change + NOTICED, end)
    found: Figures = {}
    for name, (begin, until) in phases.items():
        some = [call for call in _started(calls) if begin <= call.request.due < until]
        found |= _times(f"{name} ttft", map(_first, some))
    return found


_COLUMNS = (  # figure, head, decimals
    ("ttft mean", "TTFT mean", 0),
    ("ttft p50", "p50", 0),
    ("ttft p99", "p99", 0),
    ("e2e mean", "e2e mean", 0),
    ("e2e p99", "p99", 0),
    ("done", "done/s", 1),
    ("goodput", "good/s", 1),
    ("hits", "hits %", 1),
    ("errors", "errors", 0),
)
_PHASES = (
    ("before ttft mean", "before: mean", 0),
    ("before ttft p99", "p99", 0),
    ("soon ttft mean", f"{NOTICED:.0f} s after: mean", 0),
    ("soon ttft p99", "p99", 0),
    ("later ttft mean", "later: mean", 0),
    ("later ttft p99", "p99", 0),
)


def table(results: Mapping[str, Summary]) -> str:
    """Return the medians of some contestants as lines; times are in milliseconds."""
    first = next(iter(results.values()))
    columns = [*_COLUMNS, *(column for column in _PHASES if column[0] in first)]
    rows = [["", *(head for _, head, _ in columns), "tokens made by each server, %"]]
    for name, each in results.items():
        cells = [f"{each[key]['median']:,.{digits}f}" for key, _, digits in columns]
        rows.append([name, *cells, _shares(each)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in (0, len(widths) - 1) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _shares(each: Summary) -> str:
    return " ".join(f"{each[key]['median']:.0f}" for key in each if key.startswith("server "))
