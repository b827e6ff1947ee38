"""What stands above the table: the line of state and the row of figures."""

from __future__ import annotations

from itertools import product

from mvllm_router.dashboard import figures
from mvllm_router.dashboard.document import NOTHING, Document, entries, number, text
from mvllm_router.dashboard.history import Point
from mvllm_router.dashboard.lines import Line, Part, fit, spread, width_of
from mvllm_router.dashboard.states import counted, look

# Shares of failed requests from which the figure is yellow, and red.
_SOME_ERRORS, _MANY_ERRORS = 0.001, 0.02


def state_line(snapshot: Document, url: str, words: Line, width: int) -> Line:
    """Return address, uptime, policy and servers by state; what is too long goes, the last first.

    Args:
        words: how the picture is: LIVE, PAUSED, STALE.
    """
    uptime = number(snapshot, "uptime_seconds")
    facts: list[Line] = [((text(snapshot, "address") or url, "strong"),)]
    if text(snapshot, "state") == "draining":
        facts.append((("stopping", "bad"),))
    if changes := number(snapshot, "live_changes"):
        facts.append(((f"{changes:.0f} not in the file", "warn"),))
    if uptime is not None:
        facts.append(((f"up {figures.span(uptime)}", "plain"),))
    if policy := text(snapshot, "policy"):
        facts.append(((policy, "accent"),))
    right: Line = ((" ", "plain"), *words, (" ", "plain"))
    named, short = _states(snapshot, named=True), _states(snapshot, named=False)
    # The words behind the glyphs go before a fact does: the table has them as well.
    for kept, states in product(range(len(facts), 0, -1), (named, short)):
        left = (*_joined(facts[:kept]), ("  ", "plain"), *states)
        if width_of(left) + width_of(right) <= width:
            break
    return spread(left, right, width)


def _joined(facts: list[Line]) -> Line:
    line: list[Part] = [(" router ", "chosen"), (" ", "plain")]
    for number_, fact in enumerate(facts):
        line += [*([(" · ", "dim")] if number_ else []), *fact]
    return tuple(line)


def _states(snapshot: Document, *, named: bool) -> Line:
    parts: list[Part] = []
    for state, count in counted(entries(snapshot, "servers")):
        shown = look(state)
        word = f" {state} " if named else ""
        parts.append((f"{shown.glyph} {count}{word} ", shown.tone))
    return tuple(parts)


def figure_lines(now: Point, width: int) -> tuple[Line, Line]:
    """Return the figures and, under each, what it is; all in columns of one width."""
    share = None if now.errors is None else now.errors * 100
    errors = NOTHING if share is None else f"{share:.1f} %"
    cells = (
        (figures.rate(now.requests), "req/s", "strong"),
        (figures.rate(now.tokens), "tok/s", "strong"),
        (figures.whole(now.in_flight), "in flight", "strong"),
        (figures.whole(now.queued), "queued", "warn" if now.queued else "strong"),
        (figures.latency(now.ttft_p50), "TTFT p50", "strong"),
        (figures.latency(now.ttft_p99), "TTFT p99", "strong"),
        (errors, "errors", _tone_of_errors(now.errors)),
    )
    each = max(10, (width - 2) // len(cells))
    values = [fit(((f" {value}", tone),), each) for value, _, tone in cells]
    names = [fit(((f" {name}", "dim"),), each) for _, name, _ in cells]
    return tuple(part for cell in values for part in cell), tuple(p for cell in names for p in cell)


def _tone_of_errors(share: float | None) -> str:
    if not share or share < _SOME_ERRORS:
        return "strong"
    return "bad" if share >= _MANY_ERRORS else "warn"
