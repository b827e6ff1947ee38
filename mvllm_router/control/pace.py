"""Spreads over time what is done for each server, so that the event loop is never long away."""

from __future__ import annotations

from collections.abc import Callable


class Pace:
    """Gives out places in time, `gap` seconds apart, in the order in which they are asked for."""

    def __init__(self, gap: float, monotonic: Callable[[], float]) -> None:
        """`monotonic` gives the time in seconds."""
        self._gap = gap
        self._monotonic = monotonic
        self._next = 0.0

    def take(self) -> float:
        """Take the next place; return in how many seconds it comes."""
        now = self._monotonic()
        place = max(now, self._next)
        self._next = place + self._gap
        return place - now
