"""The default policy: the lowest score wins, ties are broken at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from mvllm_router.policies.base import Choice, Policy, Wish
from mvllm_router.pool import Backend

# Candidates of which all are compared, and a tie is broken evenly. Of more, an idle one is looked
# for at random first; where there is none, the first of the best from some place on is taken.
_FEW = 32
_PROBES = 4


class LeastLoad(Policy):
    """Choose by (running + 0.5 * waiting) / capacity.

    The lowest score is under 0.5 whenever any is, so that servers with free places are
    always preferred to busy ones.
    """

    why = "the lowest score"
    by_score = True

    def __init__(self, random_share: Callable[[], float] = random.random) -> None:
        """`random_share` gives numbers from 0 up to but not including 1."""
        self._random = random_share

    def choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        if len(candidates) == 1:
            return candidates[0], self.why
        return self.least(candidates), self.why

    def would_choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        """Return one that could be chosen: the first of those with the lowest score."""
        return min(candidates, key=lambda backend: backend.kept_score), self.why

    def least(self, candidates: Sequence[Backend]) -> Backend:
        """Return one of those with the lowest score."""
        count = len(candidates)
        if count == 1:
            return candidates[0]
        if count > _FEW:
            return self._of_many(candidates, count)
        scores = [backend.kept_score for backend in candidates]
        lowest = min(scores)
        tied = [n for n, score in enumerate(scores) if score == lowest]
        return candidates[tied[int(self._random() * len(tied))]]

    def _of_many(self, candidates: Sequence[Backend], count: int) -> Backend:
        for _ in range(_PROBES):
            backend = candidates[int(self._random() * count)]
            if not backend.kept_score:
                return backend  # nothing is better than idle
        scores = [backend.kept_score for backend in candidates]
        lowest = min(scores)
        begin = int(self._random() * count)
        try:
            return candidates[scores.index(lowest, begin)]
        except ValueError:
            return candidates[scores.index(lowest)]
