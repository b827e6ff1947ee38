"""What has been counted: plain numbers on the data path, read only when somebody asks."""

from __future__ import annotations

from collections import Counter

from mvllm_router.histogram import Histogram
from mvllm_router.pool.lately import Lately

# Seconds between the moments that `Lately.note` is called at, and how many it looks back on:
# "lately" is the last 60 to 65 seconds.
NOTE_EVERY = 5.0
# Groups of backends whose moments differ: what follows from a note is not worked out for hundreds
# of them at once.
NOTE_GROUPS = 5
_NOTES = 13

# Seconds between the events of a stream: finer at the low end than request durations.
BETWEEN_EVENTS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.02,
    0.03,
    0.05,
    0.075,
    0.1,
    0.15,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
)


class BackendStats:
    """Counts of one backend since it joined the pool."""

    __slots__ = (
        "_most_tokens",
        "completion_tokens",
        "duration",
        "events",
        "failures",
        "inter_token",
        "last_resorts",
        "lately",
        "prompt_tokens",
        "requests",
        "retries",
        "told_tokens",
        "ttft",
        "whole_events",
        "whole_tokens",
    )

    def __init__(self) -> None:
        self.requests: Counter[int] = Counter()  # answers passed on, by HTTP status
        self.failures: Counter[str] = Counter()  # attempts that gave no answer, by reason
        self.retries: Counter[str] = Counter()  # attempts moved to another backend, by reason
        self.last_resorts = 0  # requests sent there although it was not well
        self.duration = Histogram()  # seconds from the request's arrival to the last byte
        self.ttft = Histogram()  # seconds from the request's arrival to the first event
        self.inter_token = Histogram(BETWEEN_EVENTS)  # seconds between reads of a stream
        self.events = 0  # reads of streams; engines put several tokens in one event
        self.prompt_tokens = 0  # as the servers' own usage figures say
        self.completion_tokens = 0
        # The same histograms, by name, as of the last minute.
        self.lately = Lately(
            _NOTES, ttft=self.ttft, inter_token=self.inter_token, duration=self.duration
        )
        # What usage figures add to `events`, once an answer is whole; an answer that has fewer
        # tokens than events takes some away.
        self.told_tokens = 0
        # Of streams that ended and told how many tokens they had.
        self.whole_events = 0
        self.whole_tokens = 0
        self._most_tokens = 0

    @property
    def tokens_out(self) -> int:
        """Tokens that have gone out, those of running streams as well.

        An event of a stream counts as one until the answer tells how many it had. It never
        becomes less.
        """
        tokens = self.events + self.told_tokens
        if tokens > self._most_tokens:
            self._most_tokens = tokens
        return self._most_tokens


class RouterStats:
    """Counts of the router as clients see it."""

    __slots__ = (
        "client_left",
        "connections",
        "duration",
        "in_flight",
        "queued",
        "refused",
        "requests",
        "tokens_of_removed",
    )

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by route and HTTP status
        self.duration: dict[str, Histogram] = {}  # seconds, by route
        self.client_left: Counter[str] = Counter()  # clients that left before the end, by route
        self.queued = Histogram()  # seconds that requests waited for room
        self.in_flight = 0  # relayed requests that are not finished, also those that wait
        self.connections = 0  # clients that are connected
        self.tokens_of_removed = 0  # that servers sent which are no more in the pool
        self.refused = 0  # connections refused because there were too many

    def finished(self, route: str, status: int, seconds: float) -> None:
        """Count a request that got its whole answer, `seconds` after it came."""
        self.requests[route, status] += 1
        histogram = self.duration.get(route)
        if histogram is None:
            histogram = self.duration[route] = Histogram()
        histogram.observe(seconds)
