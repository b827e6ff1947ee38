"""A place that one request has taken at one backend."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from mvllm_router.pool.backend import Backend

if TYPE_CHECKING:
    from mvllm_router.pool.pool import Pool


class Lease:
    """One request on one backend. Whoever takes a lease releases it, on every path."""

    __slots__ = ("_pool", "backend", "began", "is_trial", "produces", "released", "why")

    def __init__(self, pool: Pool, backend: Backend, now: float, why: str) -> None:
        self._pool = pool
        self.backend = backend
        self.began = now  # monotonic seconds
        self.why = why  # that backend, in a phrase
        self.released = False
        self.produces = False  # it is a stream that has begun
        backend.in_flight += 1
        backend.rescore(now)
        if backend.open_for != inf:
            pool.learning.took(backend, now)
        circuit = backend.circuit
        self.is_trial = not circuit.is_closed and circuit.lets_through(now)
        if self.is_trial:
            circuit.begin_trial()

    def begins(self) -> None:
        """Note that a stream begins to come."""
        if not self.produces and not self.released:
            self.produces = True
            self.backend.producing += 1
            self._pool.learning.begins(self.backend, self.began)

    def release(self) -> None:
        """Give the place back; a second call does nothing."""
        if self.released:
            return
        self.released = True
        backend, pool = self.backend, self._pool
        backend.in_flight -= 1
        backend.producing -= self.produces
        now = pool.monotonic()
        backend.rescore(now)
        backend.waits.ended(now - self.began)
        if self.is_trial:
            backend.circuit.end_trial(self.began)
        pool.on_release(backend)
