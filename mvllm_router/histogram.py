"""A histogram with fixed bounds: one bisection and one addition per observation."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import sub

# Seconds. Wide enough for a cached first token on a LAN and for a long answer.
SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
)


# Observations of which one more changes so little that it need not be shown at once.
_MANY = 50


class Histogram:
    """Counts of observations per bucket; `counts` has one more entry than `bounds`."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation; an observation equal to a bound belongs below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile(self, q: float) -> float | None:
        """Return the q-quantile (0 < q <= 1) of all observations; None when there are none."""
        return quantile(self.bounds, list(accumulate(self.counts)), q)


class Recent:
    """What a histogram has counted lately.

    It looks back on copies of the histogram's counts, which somebody has to have made from time to
    time; so an observation costs no more for it. What it has found among many observations holds
    until the next copy.
    """

    __slots__ = ("_below", "_copies", "_found", "_histogram", "_total")

    def __init__(self, histogram: Histogram, copies: int) -> None:
        """Look back on the last so many `note`s. The histogram is a new one."""
        self._histogram = histogram
        self._copies: deque[Sequence[int]] = deque(maxlen=copies)
        # The last answers, until a note or an observation: hundreds of idle servers are asked.
        self._below: Sequence[int] = (0,)
        self._found: Mapping[str, float | None] | None = None
        self._total = 0.0

    def note(self) -> None:
        """Make a copy; where nothing has been counted since the last one, that serves again."""
        counts, copies = self._histogram.counts, self._copies
        is_idle = bool(copies) and copies[-1] == counts
        if not (is_idle and copies[0] is copies[-1] and len(copies) == copies.maxlen):
            self._found = None
        copies.append(copies[-1] if is_idle else counts.copy())

    def below(self) -> Sequence[int]:
        """Return how many there were in each bucket and those below it, since the oldest copy.

        While there are too few copies it is since ever.
        """
        self.quantiles()
        return self._below

    @property
    def is_settled(self) -> bool:
        """Whether what it has found holds until the next copy."""
        return self._found is not None and self._below[-1] >= _MANY

    def quantiles(self) -> Mapping[str, float | None]:
        """Return `p50` and `p99` of these; None where there are none."""
        histogram = self._histogram
        is_new = histogram.total != self._total and self._below[-1] < _MANY
        if self._found is None or is_new:
            counts, copies = histogram.counts, self._copies
            is_old = len(copies) == copies.maxlen
            below = list(accumulate(map(sub, counts, copies[0]) if is_old else counts))
            bounds = histogram.bounds
            self._found = {
                "p50": quantile(bounds, below, 0.5),
                "p99": quantile(bounds, below, 0.99),
            }
            self._below, self._total = below, histogram.total
        return self._found


def quantile(bounds: Sequence[float], below: Sequence[int], q: float) -> float | None:
    """Return the q-quantile (0 < q <= 1), linear within its bucket; None when nothing is counted.

    An answer in the last, open bucket is that bucket's lower bound, as Prometheus'
    `histogram_quantile` does it.

    Args:
        below: how many are in each bucket and in those below it, the open one as well.
    """
    wanted = q * below[-1]
    if not wanted:
        return None
    place = bisect_left(below, wanted)
    if place >= len(bounds):
        return bounds[-1]
    lower, seen = (bounds[place - 1], below[place - 1]) if place else (0.0, 0)
    return lower + (bounds[place] - lower) * (wanted - seen) / (below[place] - seen)
