"""Any backend, in proportion to its capacity."""

from __future__ import annotations

import random
from collections.abc import Sequence

from mvllm_router.pool import Backend


class RandomChoice:
    """Draw by capacity, so that uneven servers get uneven shares."""

    why = "drawn at random, by capacity"

    def choose(self, candidates: Sequence[Backend], now: float) -> Backend:
        return random.choices(candidates, [backend.capacity for backend in candidates])[0]
