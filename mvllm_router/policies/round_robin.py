"""Each backend in turn, whatever its load."""

from __future__ import annotations

from collections.abc import Sequence

from mvllm_router.policies.base import Choice, Policy, Wish
from mvllm_router.pool import Backend


class RoundRobin(Policy):
    """Walk through the candidates; one counter serves all models."""

    why = "its turn"

    def __init__(self) -> None:
        self._turn = -1

    def choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        self._turn += 1
        return candidates[self._turn % len(candidates)], self.why

    def would_choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        return candidates[(self._turn + 1) % len(candidates)], self.why
