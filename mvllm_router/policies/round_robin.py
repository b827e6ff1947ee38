"""Each backend in turn, whatever its load."""

from __future__ import annotations

from collections.abc import Sequence

from mvllm_router.pool import Backend


class RoundRobin:
    """Walk through the candidates; one counter serves all models."""

    why = "its turn"

    def __init__(self) -> None:
        self._turn = -1

    def choose(self, candidates: Sequence[Backend], now: float) -> Backend:
        self._turn += 1
        return candidates[self._turn % len(candidates)]

    def would_choose(self, candidates: Sequence[Backend], now: float) -> Backend:
        """Return the one whose turn is next."""
        return candidates[(self._turn + 1) % len(candidates)]
