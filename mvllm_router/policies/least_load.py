"""The default policy: the lowest score wins, ties are broken at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from mvllm_router.pool import Backend


class LeastLoad:
    """Choose by (running + 0.5 * waiting) / capacity.

    The lowest score is under 0.5 whenever any is, so that servers with free places are
    always preferred to busy ones.
    """

    def __init__(self, random_share: Callable[[], float] = random.random) -> None:
        """`random_share` gives numbers from 0 up to but not including 1."""
        self._random = random_share

    def choose(self, candidates: Sequence[Backend], now: float) -> Backend:
        lowest = candidates[0].score(now)
        best = [candidates[0]]
        for backend in candidates[1:]:
            score = backend.score(now)
            if score < lowest:
                lowest, best = score, [backend]
            elif score == lowest:
                best.append(backend)
        return best[0] if len(best) == 1 else best[int(self._random() * len(best))]
