"""Keeps retries from doubling the load just when there is too much of it."""

from __future__ import annotations

from collections.abc import Callable

# Each request pays for this share of a retry.
_SHARE = 0.2
# Retries per second that are always allowed: a quiet router must still fail over.
_FLOOR = 10.0
# Retries that can be saved up.
_LARGEST = 100.0


class RetryBudget:
    """A purse that requests and time fill, and retries empty."""

    __slots__ = ("_balance", "_monotonic", "_seen")

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """`monotonic` is the clock, in seconds."""
        self._monotonic = monotonic
        self._balance = _FLOOR
        self._seen = monotonic()

    def request(self) -> None:
        """Count a request that has come."""
        self._balance = min(_LARGEST, self._balance + _SHARE)

    def take(self) -> bool:
        """Pay for a retry; False if there is not enough for one."""
        now = self._monotonic()
        if self._balance < _FLOOR:
            self._balance = min(_FLOOR, self._balance + _FLOOR * (now - self._seen))
        self._seen = now
        if self._balance < 1:
            return False
        self._balance -= 1
        return True
