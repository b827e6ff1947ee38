"""A histogram with fixed bounds: one bisection and one addition per observation."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

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
        """Return the q-quantile (0 < q <= 1), linear within its bucket; None when empty.

        An answer in the last, open bucket is that bucket's lower bound, as Prometheus'
        `histogram_quantile` does it.
        """
        wanted = q * self.count
        if not wanted:
            return None
        seen, lower = 0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if count and seen + count >= wanted:
                return lower + (bound - lower) * (wanted - seen) / count
            seen, lower = seen + count, bound
        return lower
