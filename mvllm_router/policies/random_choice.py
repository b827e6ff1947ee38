"""Any backend, in proportion to its capacity."""

from __future__ import annotations

import random
from collections.abc import Sequence

from mvllm_router.policies.base import Choice, Policy, Wish
from mvllm_router.pool import Backend


class RandomChoice(Policy):
    """Draw by capacity, so that uneven servers get uneven shares."""

    why = "drawn at random, by capacity"

    def choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        shares = [backend.capacity for backend in candidates]
        return random.choices(candidates, shares)[0], self.why
