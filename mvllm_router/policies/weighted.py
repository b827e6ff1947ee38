"""Each backend in turn, as often as its capacity says."""

from __future__ import annotations

import random
from collections.abc import Sequence

from mvllm_router.policies.base import Choice, Policy, Wish, sample
from mvllm_router.pool import Backend


class Weighted(Policy):
    """Take turns that are as long as capacity and speed say, whatever the load.

    Each turn moves a backend's next one on by 1 / (capacity * speed), and the earliest is taken:
    stride scheduling (Waldspurger, 1995). One that comes, or comes back, begins where the others
    are, and catches up with nothing.
    """

    why = "its turn, by capacity"

    def __init__(self) -> None:
        self._next: dict[Backend, float] = {}
        self._reached = 0.0  # the latest turn that was taken

    def choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        backend, turn = self._earliest(sample(candidates, random.random))
        self._reached = max(self._reached, turn)
        self._next[backend] = turn + 1.0 / (backend.capacity * backend.share)
        return backend, self.why

    def would_choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        return self._earliest(candidates)[0], self.why

    def forget(self, backend: Backend) -> None:
        self._next.pop(backend, None)

    def _earliest(self, candidates: Sequence[Backend]) -> tuple[Backend, float]:
        reached, turn_of = self._reached, self._next.get
        turns = [turn_of(backend, reached) for backend in candidates]
        earliest = min(turns)
        # One that was away has a turn long past: it would get all until it has caught up.
        return candidates[turns.index(earliest)], max(earliest, reached)
