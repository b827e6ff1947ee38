"""The default policy: the lowest score wins, ties are broken at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from mvllm_router.pool import Backend

# Candidates among which a tie is broken evenly; among more, nearly so, for much less time.
_FEW = 32


class LeastLoad:
    """Choose by (running + 0.5 * waiting) / capacity.

    The lowest score is under 0.5 whenever any is, so that servers with free places are
    always preferred to busy ones.
    """

    def __init__(self, random_share: Callable[[], float] = random.random) -> None:
        """`random_share` gives numbers from 0 up to but not including 1."""
        self._random = random_share

    def choose(self, candidates: Sequence[Backend], now: float) -> Backend:
        if len(candidates) == 1:
            return candidates[0]
        # All in C: there may be hundreds.
        scores = [backend.kept_score for backend in candidates]
        lowest = min(scores)
        if len(scores) <= _FEW:
            tied = [n for n, score in enumerate(scores) if score == lowest]
            return candidates[tied[int(self._random() * len(tied))]]
        # The first from some place on: idle ones are tied almost always, and nearly all of them.
        begin = int(self._random() * len(scores))
        try:
            return candidates[scores.index(lowest, begin)]
        except ValueError:
            return candidates[scores.index(lowest)]
