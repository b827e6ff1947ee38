"""Puts what traffic shows of the servers to use: what they can run, and how fast they are."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from mvllm_router.pool.backend import Backend
from mvllm_router.pool.learned import share_of_fastest
from mvllm_router.pool.load import Sample

if TYPE_CHECKING:
    from mvllm_router.pool.pool import Pool


Like = tuple[str, "frozenset[str] | None"]  # servers of one engine with the same models


class Learning:
    """What the pool learns; while it is not `on`, only what was said counts."""

    def __init__(self, pool: Pool, *, on: bool) -> None:
        self.on = on
        self._pool = pool

    def look(self) -> None:
        """Take what was seen lately into account; it is called about once a second."""
        now = self._pool.monotonic()
        backends = list(self._pool.backends.values())
        for backend in backends:
            backend.speed.look(backend.stats, now)
        self._share(backends)
        self._size(backends)
        for backend in backends:
            backend.rescore(now)

    def _size(self, backends: list[Backend]) -> None:
        """Take for each what it was seen to run, or what others like it were.

        Or who got more once would for ever get more. Where nobody can see whether requests wait,
        what was seen says nothing.
        """
        most: dict[Like, float] = {}
        alike: dict[Backend, Like] = {}
        for backend in backends:
            if backend.scrape is not None and not backend.places.is_known:
                alike[backend] = like = (backend.engine, backend.model_names())
                most[like] = max(backend.places.runs, most.get(like, backend.default_capacity))
        for backend in backends:
            seen = 0.0
            if self.on and backend.places.is_known:
                seen = backend.places.runs
            elif self.on and backend in alike:
                seen = most[alike[backend]]
            backend.size(seen=round(seen))

    def _share(self, backends: list[Backend]) -> None:
        known = []
        for backend in backends:
            if self.on and backend.spec.weight == 1 and backend.speed.tokens_per_second:
                known.append(backend)
            else:
                backend.share = 1.0
        shares = share_of_fastest((one.model_names(), one.speed.found) for one in known)
        for backend, share in zip(known, shares, strict=True):
            backend.share = share

    def scraped(self, backend: Backend, sample: Sample, now: float) -> None:
        """Learn from what an engine says of itself."""
        backend.speed.told(sample, now)
        if sample.running is not None and sample.waiting is not None:
            backend.places.saw(sample.running, sample.waiting)
        self._reopen(backend, now)

    def begins(self, backend: Backend, asked: float) -> None:
        """Note that a backend begins to answer what it was `asked` then (monotonic seconds)."""
        now = self._pool.monotonic()
        if backend.in_flight <= backend.open_for:
            backend.waits.began(now - asked, now)
        if backend.producing > backend.places.runs:
            backend.places.saw_running(backend.producing)
            if backend.open_for != inf:
                self._reopen(backend, now)

    def took(self, backend: Backend, now: float) -> None:
        """Note that a backend which runs only so many requests at once got one more."""
        others = backend.scrape.others if backend.scrape else 0.0
        if backend.places.took(backend.in_flight + others):
            self._reopen(backend, now)

    def try_more(self, waiting: int) -> None:
        """Let requests that wait, so many, find out whether backends run more than was seen."""
        now = self._pool.monotonic()
        for backend in self._pool.backends.values():
            if backend.places.may_try(now, waiting):
                self._reopen(backend, now)

    def _reopen(self, backend: Backend, now: float) -> None:
        before = backend.open_for
        backend.reopen(now, learns=self.on)
        if backend.open_for != inf:
            self._pool.some_are_capped = True
        if backend.open_for > before:
            self._pool.on_release(backend)
