"""What a key may take per minute and at once. The time of now, in seconds, is passed in."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from mvllm_router.config import KeySpec
from mvllm_router.errors import RateLimited

_MINUTE = 60.0  # seconds
# What is told of each limit, by the reason under which refusals are counted.
_TEXTS = {
    "concurrent": "The key `{key}` may have {limit} requests in flight at once.",
    "requests": "The key `{key}` may make {limit} requests per minute.",
    "tokens": "The key `{key}` may use {limit} tokens per minute.",
}
# What adding up fractions may lose; a client that waited as long as it was told must come in.
_ROUNDING = 1e-6


class Bucket:
    """Holds one minute's worth when full, and fills evenly.

    What an answer cost is known only afterwards, so the level may fall below zero; nothing more is
    given out until it has risen to one again.
    """

    __slots__ = ("_at", "_level", "per_minute")

    def __init__(self, per_minute: int, now: float) -> None:
        """Start full."""
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._at = now

    def level(self, now: float) -> float:
        risen = self._level + (now - self._at) * self.per_minute / _MINUTE
        return min(self.per_minute, risen)

    def wait(self, now: float) -> float:
        """Return the seconds until it holds one; 0 if it does."""
        missing = 1 - self.level(now)
        return missing * _MINUTE / self.per_minute if missing > _ROUNDING else 0.0

    def take(self, amount: int, now: float) -> None:
        self._level = self.level(now) - amount
        self._at = now

    def resize(self, per_minute: int, now: float) -> None:
        """Fill at another rate from now on; what is in it stays, as far as it still has room."""
        self._level = self.level(now)
        self._at = now
        self.per_minute = per_minute


class Refusal(NamedTuple):
    """Why a request has to wait: which limit, what it allows, and for how many seconds."""

    reason: str
    limit: int
    wait: float

    def error(self, key: str) -> RateLimited:
        seconds = max(1, ceil(self.wait - _ROUNDING))
        text = _TEXTS[self.reason].format(key=key, limit=self.limit)
        return RateLimited(f"{text} Try again in {seconds} s.", retry_after=seconds)


class Limits:
    """The limits of one key, and how far they are used up."""

    __slots__ = ("_at_once", "_requests", "_tokens")

    def __init__(self, spec: KeySpec, now: float) -> None:
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self.adopt(spec, now)

    def adopt(self, spec: KeySpec, now: float) -> None:
        """Take over other limits; what was used stays used."""
        self._at_once = spec.max_concurrent_requests
        self._requests = _resized(self._requests, spec.requests_per_minute, now)
        self._tokens = _resized(self._tokens, spec.tokens_per_minute, now)

    def refusal(self, in_flight: int, now: float) -> Refusal | None:
        """Tell what forbids one more request now: of several limits the one that takes longest."""
        found: Refusal | None = None
        if self._at_once is not None and in_flight >= self._at_once:
            found = Refusal("concurrent", self._at_once, 1.0)
        for reason, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            wait = bucket.wait(now) if bucket else 0.0
            if bucket and wait and (found is None or wait > found.wait):
                found = Refusal(reason, bucket.per_minute, wait)
        return found

    def begin(self, now: float) -> None:
        """Count a request."""
        if self._requests:
            self._requests.take(1, now)

    def used(self, tokens: int, now: float) -> None:
        """Count what an answer cost."""
        if self._tokens:
            self._tokens.take(tokens, now)


def _resized(bucket: Bucket | None, per_minute: int | None, now: float) -> Bucket | None:
    """Return the bucket for a limit that may be new, another one, or gone."""
    if per_minute is None:
        return None
    if bucket is None:
        return Bucket(per_minute, now)
    bucket.resize(per_minute, now)
    return bucket
