"""What traffic shows of a server: how many requests it runs at once, and how fast it is.

Nobody has to say it, and what somebody said may be wrong. Only what cannot be mistaken counts: a
server that has requests waiting runs all it can, and one that answers so many at once can run so
many.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from mvllm_router.pool.load import Sample
from mvllm_router.pool.stats import BackendStats

# A figure that is lower than this part of the limit is no sight of the limit: a server may have
# requests waiting for a moment because it reads a long prompt.
_AT_THE_LIMIT = 0.9
# Where it is seen again and again, the limit comes down by this factor each time.
_DOWN = 0.8
# Sights of a limit that nobody told, before it is believed.
_SIGHTS = 2
# Seconds between two tries whether a server runs more than its limit. Each that finds nothing new
# doubles them.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 16.0

# Gaps between the reads of streams that make a sample, and tokens of one that an engine tells.
_GAPS, _TOKENS = 20, 20
# Seconds. No model makes tokens faster; what looks like it is how fast they were passed on.
_SHORTEST_GAP = 0.002
# The weight of a new sample; there is one each second while requests are answered.
_WEIGHT = 0.35
# The weight of a single request, and seconds after which what was seen counts half.
_WEIGHT_OF_ONE, _FADES = 0.2, 30.0
# Seconds for which streams say more than the engine's own count.
_STREAMS_COUNT = 10.0
# Servers that differ by less are as fast as each other; none counts as slower than that.
_AS_FAST, _SLOWEST = 0.9, 0.02


class Places:
    """How many requests a server runs at once.

    `runs` is the most that it was seen to run, and the limit once `is_known`. Whether more would go
    is tried from time to time while somebody waits, with one request more; with twice as many when
    that went well.
    """

    __slots__ = ("_assumed", "_pause", "_sights", "_step", "_tried", "_try_at", "_up_to", "runs")

    def __init__(self) -> None:
        self.runs = 0.0
        self._assumed = 0
        self._sights = 0
        self._up_to = 0  # a number beyond the limit that is to be tried; 0: none
        self._step = 1  # how many will be tried next
        self._tried = False
        self._pause = _FIRST_PAUSE
        self._try_at = 0.0  # monotonic seconds

    @property
    def is_known(self) -> bool:
        return self._assumed > 0 or self._sights >= _SIGHTS

    @property
    def was_seen(self) -> bool:
        """Whether it was seen, and not only told."""
        return self._sights >= _SIGHTS

    @property
    def open_for(self) -> float:
        """How many requests it would begin at once, tries included; inf while unknown."""
        return max(round(self.runs), self._up_to) if self.is_known else inf

    def assume(self, count: int) -> None:
        """Begin with what the file or the engine says."""
        if count != self._assumed:
            self._assumed = count
            self.runs = float(count or self.runs)

    def saw(self, running: float, waiting: float) -> None:
        """Learn from what an engine says of itself."""
        if waiting <= 0:
            self.saw_running(running)
            return
        if running >= _AT_THE_LIMIT * self.runs:
            self.runs = max(1.0, running)
            self._sights += 1
        else:
            self.runs = max(1.0, running, _DOWN * self.runs)
        self._step = 1
        self._up_to = 0

    def saw_running(self, running: float) -> None:
        """Learn that it runs so many at once, or more."""
        if running <= self.runs:
            return
        self.runs = running
        self._pause, self._try_at = _FIRST_PAUSE, 0.0
        if self._tried:
            self._step *= 2
            self._tried = False

    def may_try(self, now: float, waiting: int) -> bool:
        """Open places beyond the limit if it is time to; tell whether any were opened.

        Asked while requests are `waiting` in the router; `now` is in monotonic seconds.
        """
        if not self.is_known or now < self._try_at:
            return False
        self._up_to, self._tried = round(self.runs) + min(self._step, waiting), True
        self._try_at = now + self._pause
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
        return True

    def took(self, in_flight: float) -> bool:
        """Note that a request makes it `in_flight`; tell whether a try is complete by that.

        So each is made once: what comes after it waits for what it shows.
        """
        if not self._up_to or in_flight < self._up_to:
            return False
        self._up_to = 0
        return True


class Speed:
    """How many tokens a second one request gets while a server answers it.

    From the gaps between the reads of streams; where there are none, from how fast the engine's own
    count of tokens grows, shared among the requests that it runs.
    """

    __slots__ = (
        "_events",
        "_gaps",
        "_seconds",
        "_streams_at",
        "_tokens",
        "_tokens_an_event",
        "_told",
        "tokens_per_second",
    )

    def __init__(self, stats: BackendStats) -> None:
        """Learn from what is counted in `stats` from now on."""
        self.tokens_per_second: float | None = None
        between = stats.inter_token
        self._gaps, self._seconds = between.count, between.total  # as of the last sample
        self._events, self._tokens = stats.whole_events, stats.whole_tokens  # the same
        self._tokens_an_event = 1.0
        self._streams_at = -inf  # monotonic seconds
        self._told: tuple[float, float, float] | None = None

    @property
    def found(self) -> float:
        """The same; 0 while unknown."""
        return self.tokens_per_second or 0.0

    def look(self, stats: BackendStats, now: float) -> None:
        """Learn from the streams since the last look that saw enough of them."""
        between = stats.inter_token
        if between.total == self._seconds:
            return
        gaps, seconds = between.count - self._gaps, between.total - self._seconds
        if gaps < _GAPS:
            return
        self._gaps, self._seconds = between.count, between.total
        self._streams_at = now
        self._count_tokens(stats)
        self._learn(self._tokens_an_event / max(_SHORTEST_GAP, seconds / gaps))

    def _count_tokens(self, stats: BackendStats) -> None:
        """Learn from the streams that have told it how many tokens an event holds."""
        events, tokens = stats.whole_events - self._events, stats.whole_tokens - self._tokens
        if events >= _GAPS:
            self._events, self._tokens = stats.whole_events, stats.whole_tokens
            self._tokens_an_event = tokens / events

    def told(self, sample: Sample, now: float) -> None:
        """Learn from an engine's count of tokens."""
        before, tokens, running = self._told, sample.generation_tokens, sample.running
        if tokens is None or running is None:
            return
        if before is None or tokens < before[0] or not (running and before[1]):
            self._told = tokens, running, now
            return
        if tokens - before[0] < _TOKENS:
            return
        self._told = tokens, running, now
        if now - self._streams_at > _STREAMS_COUNT:
            a_second = (tokens - before[0]) / max(_SHORTEST_GAP, now - before[2])
            self._learn(a_second / ((running + before[1]) / 2))

    def _learn(self, found: float) -> None:
        before = self.tokens_per_second
        self.tokens_per_second = found if before is None else before + _WEIGHT * (found - before)


class Waits:
    """How long it takes a server to begin to answer, and to answer in whole: lately, in seconds."""

    __slots__ = ("_at", "_first", "_whole")

    def __init__(self) -> None:
        self._first: float | None = None
        self._at = 0.0  # monotonic seconds of the last that counted
        self._whole = 0.0

    def began(self, seconds: float, now: float) -> None:
        """Note how long a stream took to begin that found a free place."""
        first = self._first
        self._first = seconds if first is None else first + _WEIGHT_OF_ONE * (seconds - first)
        self._at = now

    def ended(self, seconds: float) -> None:
        """Note how long a request was there."""
        self._whole += _WEIGHT_OF_ONE * (seconds - self._whole)

    def expected(self, load: float, places: float, now: float) -> float:
        """Return how long one more would take to begin.

        Where no stream has shown it: 0 for the first one, or it would never be known; then what a
        whole answer takes, and inf while there has been none.

        Args:
            load: requests that are there.
            places: how many it runs at once; the others wait until one of those ends.
            now: monotonic seconds; what was seen long ago fades.
        """
        if self._first is None:
            return 0.0 if load < 1 else self._whole or inf
        beyond = max(0.0, load + 1 - places)
        fading: float = 0.5 ** ((now - self._at) / _FADES)
        return self._first * fading + beyond * self._whole / places


def share_of_fastest(speeds: Iterable[tuple[frozenset[str] | None, float]]) -> list[float]:
    """Return how fast servers are beside the fastest that has a model in common with them, 0 to 1.

    Args:
        speeds: of each server, its models (None: it does not say) and tokens a second.
    """
    servers = [(models or ("",), speed) for models, speed in speeds]
    fastest: dict[str, float] = {}
    for models, speed in servers:
        for model in models:
            fastest[model] = max(speed, fastest.get(model, 0.0))
    shares = [speed / max(fastest[model] for model in models) for models, speed in servers]
    return [1.0 if share >= _AS_FAST else max(_SLOWEST, round(share, 2)) for share in shares]
