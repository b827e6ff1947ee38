"""The server where the first token is expected soonest."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from mvllm_router.policies.base import Choice, Policy, Wish, sample
from mvllm_router.pool import Backend

# Expectations that differ by less are the same.
_SAME = 1.1


class Latency(Policy):
    """Choose by the expected time to the first token.

    It is what streams that did not have to wait for a place took lately, and where a request would
    have to wait, the time until so many others have ended:

        first + max(0, in flight + 1 - places) * whole / places

    The best servers are used until they are full, the others after them. What was seen long ago
    fades, so that a server that was slow once is tried again.
    """

    why = "the first token expected soonest"

    def __init__(self, random_share: Callable[[], float] = random.random) -> None:
        """`random_share` gives numbers from 0 up to but not including 1."""
        self._random = random_share

    def choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        candidates = sample(candidates, self._random)
        expected = [backend.expected_wait(now) for backend in candidates]
        most = min(expected) * _SAME
        good = [one for one, seconds in zip(candidates, expected, strict=True) if seconds <= most]
        return good[int(self._random() * len(good))], self.why

    def would_choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        return min(candidates, key=lambda one: one.expected_wait(now)), self.why
