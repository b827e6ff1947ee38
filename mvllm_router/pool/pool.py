"""All backends and their live state. Every change of state goes through a method here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping

from mvllm_router.config import ServerSpec
from mvllm_router.pool.backend import Backend, ModelCard
from mvllm_router.pool.events import Events
from mvllm_router.pool.health import Health, HealthRules, State
from mvllm_router.pool.load import STALE_AFTER_INTERVALS, Sample, Scrape
from mvllm_router.pool.stats import RouterStats

# What a server is taken to run at once when neither the file nor the engine says it.
DEFAULT_CAPACITY = 8


class Lease:
    """One request on one backend. Whoever takes a lease releases it, on every path."""

    __slots__ = ("_pool", "backend", "released")

    def __init__(self, pool: Pool, backend: Backend) -> None:
        self._pool = pool
        self.backend = backend
        self.released = False
        backend.in_flight += 1

    def release(self) -> None:
        """Give the place back; a second call does nothing."""
        if self.released:
            return
        self.released = True
        self.backend.in_flight -= 1
        self._pool.on_release(self.backend)


class Pool:
    """The backends by name, and an index from model name to those that serve it."""

    def __init__(
        self,
        rules: HealthRules | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Make an empty pool; the two clocks are for tests to replace."""
        self.rules = rules or HealthRules()
        self.monotonic = monotonic
        self.wall = wall
        self.backends: dict[str, Backend] = {}
        self.events = Events()
        self.stats = RouterStats()
        self.on_release: Callable[[Backend], None] = lambda _backend: None
        self.listeners: list[Callable[[], None]] = []  # called after each change
        self.some_take_one = False  # some backend takes one request at a time
        self._by_model: dict[str | None, list[Backend]] = {}

    # --- who is in the pool

    def add(self, spec: ServerSpec) -> Backend:
        """Take a server in; its name must be free."""
        backend = Backend(spec, Health(self.rules, self.monotonic), DEFAULT_CAPACITY)
        self.backends[spec.name] = backend
        self.events.add("added", spec.name, f"added ({spec.url})")
        self._changed()
        return backend

    def remove(self, name: str) -> Backend:
        """Take a server out of every total at once; what it has in flight finishes."""
        backend = self.backends.pop(name)
        backend.removed = True
        running = f", {backend.in_flight} requests still running" if backend.in_flight else ""
        self.events.add("removed", name, f"removed{running}")
        self._changed()
        return backend

    def update(self, spec: ServerSpec) -> Backend:
        """Give a server other settings; its counts, health and connections stay.

        When its engine is no longer given, it is taken for what it was until it is recognised.
        """
        backend = self.backends[spec.name]
        if spec.engine != "auto":
            backend.speaks(spec.engine)
        backend.spec = spec
        backend.size()
        self.events.add("updated", spec.name, "settings changed")
        self._changed()
        return backend

    def drain(self, name: str) -> Backend:
        """Give a server no new requests, until `enable`; what it has in flight finishes."""
        backend = self.backends[name]
        if not backend.draining:
            backend.draining = True
            self.events.add("drain", name, f"draining, {backend.in_flight} requests still running")
            self._changed()
        return backend

    def enable(self, name: str) -> Backend:
        """End `drain`."""
        backend = self.backends[name]
        if backend.draining:
            backend.draining = False
            self.events.add("enable", name, "takes requests again")
            self._changed()
        return backend

    def adopt(self, rules: HealthRules) -> None:
        """Go on under other health rules."""
        self.rules = rules
        for backend in self.backends.values():
            backend.health.adopt(rules)

    # --- what backends told or showed

    def recognised(
        self, backend: Backend, engine: str, *, default_capacity: int, one_at_a_time: bool
    ) -> None:
        """Note which engine a backend is, and what follows from it."""
        is_new = (backend.engine, backend.one_at_a_time) != (engine, one_at_a_time)
        backend.speaks(engine)
        backend.one_at_a_time = one_at_a_time
        backend.size(default=default_capacity)
        if is_new:
            self.events.add("recognised", backend.name, f"speaks {engine}")
            self._changed()

    def told_capacity(self, backend: Backend, slots: int | None) -> None:
        """Note how many requests the engine says it runs at once; None when it does not."""
        backend.size(told=slots)

    def told_models(self, backend: Backend, cards: Mapping[str, ModelCard] | None) -> None:
        """Note the models that a server lists; None when it does not say."""
        backend.cards_at = self.wall()
        if cards == backend.cards:
            return
        known = backend.cards is not None
        before, backend.cards = frozenset(backend.cards or ()), cards
        after = frozenset(cards or ())
        if after != before or not known:
            self.events.add("models", backend.name, f"serves {', '.join(sorted(after)) or '?'}")
        self._changed()

    def scraped(self, backend: Backend, sample: Sample, own: int, interval: float) -> None:
        """Note what a scrape said, with the router's own count then; one comes each `interval`."""
        now = self.monotonic()
        backend.scrape = Scrape(sample, now, own)
        backend.scrape_expires = now + STALE_AFTER_INTERVALS * interval

    def health(self, backend: Backend, what: Callable[[Health], None]) -> None:
        """Apply one observation to a backend's health and record what changed by it."""
        health = backend.health
        before = (health.state, health.ejected)
        what(health)
        if (health.state, health.ejected) != before:
            self._state_changed(backend)

    def _state_changed(self, backend: Backend) -> None:
        health = backend.health
        level = logging.WARNING if health.state is State.DOWN else logging.INFO
        self.events.add(
            health.state.value, backend.name, f"{health.state.value}: {health.reason}", level
        )
        if not backend.removed:
            self._changed()

    # --- who may take a request

    def lease(self, backend: Backend) -> Lease:
        return Lease(self, backend)

    def candidates(self, model: str | None) -> list[Backend]:
        """Return the backends that can be asked for `model` now (any, for None).

        Those that are up and have it; failing that, those that are up and do not say what
        they have; failing that, those that are out only for what requests showed, since
        the least bad is better than none.
        """
        found = self._by_model.get(model)
        if found is None:
            found = self._find(model)
            # Names come from clients: keep only short ones that exist, and not too many.
            if found and len(model or "") <= 256 and len(self._by_model) < 4096:
                self._by_model[model] = found
        return found

    def _find(self, model: str | None) -> list[Backend]:
        open_to_us = [backend for backend in self.backends.values() if not backend.draining]
        up = [backend for backend in open_to_us if backend.is_up]
        ejected = [backend for backend in open_to_us if backend.health.ejected]
        return _serving(model, up) or _serving(model, ejected)

    def may_have(self, model: str) -> bool:
        """Tell whether `model` could be served once some backend comes (back) up."""
        return any(
            model in (backend.model_names() or ())
            or (backend.model_names() is None and _not_known_yet(backend))
            for backend in self.backends.values()
        )

    def model_names(self) -> list[str]:
        """Return every model name that clients can ask for, of backends that are up."""
        names: set[str] = set()
        for backend in self.backends.values():
            if backend.is_up:
                names |= backend.model_names() or frozenset()
        return sorted(names)

    def _changed(self) -> None:
        self._by_model.clear()
        self.some_take_one = any(b.one_at_a_time for b in self.backends.values())
        for listener in self.listeners:
            listener()


def _serving(model: str | None, backends: Collection[Backend]) -> list[Backend]:
    if model is None:
        return list(backends)
    listed = [b for b in backends if model in (b.model_names() or ())]
    return listed or [b for b in backends if b.model_names() is None]


def _not_known_yet(backend: Backend) -> bool:
    return backend.health.state in (State.CHECKING, State.LOADING)
