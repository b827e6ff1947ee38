"""What has been: rates out of counters, and lines for charts. Times are monotonic seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass

from mvllm_router.dashboard.document import Document, entries, number, text

# Seconds over which rates are taken: short enough to be "now", long enough not to flicker.
RATE_WINDOW = 5.0
# Errors are few: their share is that of a minute.
ERROR_WINDOW = 60.0
# The longest span of a chart, in seconds, and the most points that are kept of it.
LONGEST = 1800.0
_KEPT = 4000
# A router that starts anew begins at 0. One that is asked through a balancer may differ a little.
_SLACK = 2.0


@dataclass(frozen=True, slots=True)
class Point:
    """The pool at one moment; None is "not known". Rates are per second."""

    at: float
    requests: float | None = None
    tokens: float | None = None
    errors: float | None = None
    in_flight: float | None = None
    queued: float | None = None
    ttft_p50: float | None = None
    ttft_p99: float | None = None


class Window:
    """Counters over the last seconds, and how fast each has grown in them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._samples: deque[tuple[float, tuple[float | None, ...]]] = deque()

    def add(self, at: float, counters: tuple[float | None, ...]) -> None:
        """Take a sample in. Counters that went back belong to another life: the others go."""
        if self._samples and _went_back(self._samples[-1][1], counters):
            self._samples.clear()
        self._samples.append((at, counters))
        # The oldest one that is kept is the last that lies outside: rates cover the whole window.
        while len(self._samples) > 2 and self._samples[1][0] <= at - self._seconds:
            self._samples.popleft()

    def clear(self) -> None:
        self._samples.clear()

    def still(self) -> Window:
        """Return one that stays as this one is now."""
        window = copy(self)
        window._samples = self._samples.copy()
        return window

    def grown(self, index: int) -> float | None:
        """Return by how much a counter has grown; None as long as there is nothing to compare."""
        if len(self._samples) < 2:
            return None
        before, after = self._samples[0][1][index], self._samples[-1][1][index]
        return None if before is None or after is None else after - before

    def per_second(self, index: int) -> float | None:
        grown = self.grown(index)
        if grown is None:
            return None
        seconds = self._samples[-1][0] - self._samples[0][0]
        return grown / seconds if seconds > 0 else None


def _went_back(before: Sequence[float | None], after: Sequence[float | None]) -> bool:
    return any(
        old is not None and new is not None and new < old
        for old, new in zip(before, after, strict=True)
    )


class History:
    """Snapshots turned into rates of the router and of each server, and into lines of charts."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=_KEPT)
        self._short = Window(RATE_WINDOW)
        self._long = Window(ERROR_WINDOW)
        self._servers: dict[str, Window] = {}
        self._life: tuple[float | None, float] | None = None

    @property
    def now(self) -> Point:
        """The newest point; one that knows nothing before the first snapshot."""
        return self._points[-1] if self._points else Point(0.0)

    def still(self) -> History:
        """Return one to look at, which stays as this one is now."""
        history = copy(self)
        history._points = self._points.copy()
        history._servers = {name: window.still() for name, window in self._servers.items()}
        return history

    def add(self, snapshot: Document, at: float, *, took: float = 0.0) -> bool:
        """Take a snapshot in; return whether it is that of another life of the router.

        Args:
            at: when it came.
            took: seconds from the question to the answer, in any of which it may have been made.
        """
        is_new = self._is_another_life(snapshot, at, took)
        if is_new:
            for window in (self._short, self._long, *self._servers.values()):
                window.clear()
        self._add_servers(entries(snapshot, "servers"), at)
        total, errors = (
            number(snapshot, "requests", "total"),
            number(snapshot, "requests", "errors"),
        )
        tokens = _tokens_of_all(snapshot)
        # Apart from the tokens: where they are a sum, a server that goes takes its own with it.
        self._long.add(at, (total, errors))
        self._short.add(at, (total, tokens))
        self._points.append(self._point(snapshot, at))
        while self._points[0].at < at - LONGEST:
            self._points.popleft()
        return is_new

    def _is_another_life(self, snapshot: Document, at: float, took: float) -> bool:
        """Compare process and start, which is by this clock, with those of the last snapshot."""
        uptime = number(snapshot, "uptime_seconds")
        latest_start = at - (uptime or 0.0)
        life = (number(snapshot, "pid"), latest_start)
        before, self._life = self._life, life
        if before is None or uptime is None:
            return False
        return before[0] != life[0] or latest_start - took > before[1] + _SLACK

    def _add_servers(self, servers: Sequence[Document], at: float) -> None:
        names = {text(server, "name") for server in servers}
        for gone in set(self._servers) - names:
            del self._servers[gone]
        for server in servers:
            window = self._servers.setdefault(text(server, "name"), Window(RATE_WINDOW))
            window.add(at, (tokens_of(server), number(server, "requests")))

    def _point(self, snapshot: Document, at: float) -> Point:
        ended, failed = self._long.grown(0), self._long.grown(1)
        return Point(
            at,
            requests=self._short.per_second(0),
            tokens=self._short.per_second(1),
            errors=failed / ended if ended and failed is not None else None,
            in_flight=number(snapshot, "in_flight"),
            queued=number(snapshot, "queued"),
            ttft_p50=_ttft(snapshot, "p50"),
            ttft_p99=_ttft(snapshot, "p99"),
        )

    def tokens_per_second(self, name: str) -> float | None:
        window = self._servers.get(name)
        return window.per_second(0) if window else None

    def requests_per_second(self, name: str) -> float | None:
        window = self._servers.get(name)
        return window.per_second(1) if window else None

    def line(
        self, value: Callable[[Point], float | None], span: float, slots: int, now: float
    ) -> list[float | None]:
        """Return the last `span` seconds in `slots` steps, oldest first.

        The highest value of each step is shown, so that no peak is lost. A step that saw no
        snapshot carries on the value before it when the snapshots come that seldom.
        """
        step = span / slots
        # Steps have fixed borders: else each value would jump between two of them.
        last = int(now // step)
        line: list[float | None] = [None] * slots
        newest: dict[int, float] = {}
        for point in self._points:
            slot = slots - 1 - (last - int(point.at // step))
            found = value(point)
            if 0 <= slot < slots and found is not None:
                line[slot] = max(found, line[slot] or 0.0)
                newest[slot] = point.at
        _carry_on(line, newest, step, self._gap())
        return line

    def _gap(self) -> float:
        """Return how long there may be no snapshot before a line is broken, in seconds."""
        if len(self._points) < 2:
            return 0.0
        latest = list(self._points)[-10:]
        usual = (latest[-1].at - latest[0].at) / (len(latest) - 1)
        return 2.5 * usual


def _carry_on(line: list[float | None], newest: dict[int, float], step: float, gap: float) -> None:
    reach = int(gap / step)
    since = reach + 1
    for slot in range(1, len(line)):
        since = 0 if slot in newest else since + 1
        if line[slot] is None and since <= reach:
            line[slot] = line[slot - 1]


def tokens_of(server: Document) -> float | None:
    """Return the tokens that a server has sent so far; an older router counts only some."""
    seen = number(server, "tokens_out")
    return number(server, "completion_tokens") if seen is None else seen


def _tokens_of_all(snapshot: Document) -> float | None:
    seen = number(snapshot, "tokens_out")
    if seen is not None:
        return seen
    each = [tokens_of(server) for server in entries(snapshot, "servers")]
    known = [tokens for tokens in each if tokens is not None]
    return sum(known) if known else None


def _ttft(snapshot: Document, quantile: str) -> float | None:
    """Return that of all streams; from an older router the middle or the worst of its servers."""
    if "ttft_seconds" in snapshot:
        return number(snapshot, "ttft_seconds", quantile)
    each = [number(s, "ttft_seconds", quantile) for s in entries(snapshot, "servers")]
    known = sorted(value for value in each if value is not None)
    if not known:
        return None
    return known[-1] if quantile == "p99" else known[len(known) // 2]
