"""The better of two candidates drawn at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from mvllm_router.policies.base import Choice, Policy, Wish
from mvllm_router.pool import Backend


class PowerOfTwo(Policy):
    """Draw two and take the one with the lower score.

    Routers that know little of each other do not all run to the same server so.
    """

    why = "the lower score of two drawn"

    def __init__(self, random_share: Callable[[], float] = random.random) -> None:
        """`random_share` gives numbers from 0 up to but not including 1."""
        self._random = random_share

    def choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        count = len(candidates)
        first = int(self._random() * count)
        if count == 1:
            return candidates[first], self.why
        second = (first + 1 + int(self._random() * (count - 1))) % count
        one, other = candidates[first], candidates[second]
        return (one if one.kept_score <= other.kept_score else other), self.why
