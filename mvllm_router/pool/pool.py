"""All backends and their live state. Every change of state goes through a method here."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf

from mvllm_router.config import ServerSpec
from mvllm_router.pool.backend import Absence, Backend, ModelCard
from mvllm_router.pool.circuit import Circuit, CircuitRules
from mvllm_router.pool.events import Events
from mvllm_router.pool.health import Health, HealthRules, State
from mvllm_router.pool.learning import Learning
from mvllm_router.pool.lease import Lease
from mvllm_router.pool.load import STALE_AFTER_INTERVALS, Sample, Scrape
from mvllm_router.pool.requests import Requests
from mvllm_router.pool.stats import RouterStats

# What a server is taken to run at once when neither the file nor the engine says it.
DEFAULT_CAPACITY = 8
# Models of a server that an event names.
_NAMED = 20
# Seconds between two messages that a server was asked as the last resort.
_SAY_AGAIN = 10.0


class Pool:
    """The backends by name, and an index from model name to those that serve it."""

    def __init__(
        self,
        rules: HealthRules | None = None,
        circuit_rules: CircuitRules | None = None,
        *,
        enforce_capacity: bool = False,
        learns: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Make an empty pool.

        Args:
            rules: when health checks take a backend out.
            circuit_rules: when requests that fail leave one out.
            enforce_capacity: none gets more requests than it can run at once.
            learns: what traffic shows of them counts.
            monotonic: a clock in seconds, for tests to replace.
            wall: another, in seconds since the epoch.
        """
        self.rules = rules or HealthRules()
        self.circuit_rules = circuit_rules or CircuitRules()
        self.enforce_capacity = enforce_capacity
        self.learning = Learning(self, on=learns)
        self.monotonic = monotonic
        self.wall = wall
        self.backends: dict[str, Backend] = {}
        self.events = Events()
        self.stats = RouterStats()
        self.requests = Requests()
        self.on_release: Callable[[Backend], None] = lambda _backend: None
        self.on_remove: Callable[[Backend], None] = lambda _backend: None
        self.listeners: list[Callable[[], None]] = []  # called after each change
        self.some_are_capped = False  # some backend may get only so many requests at once
        self._by_model: dict[str | None, list[Backend]] = {}
        # Those whose circuit is not closed, or who rest: time may have changed that since.
        self._unwell: set[Backend] = set()
        # Monotonic seconds. No scrape that kept scores depend on is too old before.
        self._first_expires = inf
        # What tags of backends begin with: not even a router started anew gives one out twice.
        self._epoch = f"{random.getrandbits(32):08x}"
        self._tags = 0
        self._quiet_until = 0.0  # monotonic seconds; until then no last resort is told

    # --- who is in the pool

    def add(self, spec: ServerSpec) -> Backend:
        """Take a server in; its name must be free."""
        health = Health(self.rules, self.monotonic)
        circuit = Circuit(self.circuit_rules, self.monotonic())
        backend = Backend(spec, health, circuit, DEFAULT_CAPACITY)
        self._tag(backend)
        self.backends[spec.name] = backend
        self.events.add("added", spec.name, f"added ({spec.url})")
        self._changed()
        return backend

    def remove(self, name: str) -> Backend:
        """Take a server out of every total at once; what it has in flight finishes."""
        backend = self.backends.pop(name)
        backend.removed = True
        self.stats.tokens_of_removed += backend.stats.tokens_out
        self._unwell.discard(backend)
        running = f", {backend.in_flight} requests still running" if backend.in_flight else ""
        self.events.add("removed", name, f"removed{running}")
        self.on_remove(backend)
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
        self._tag(backend)
        self.events.add("updated", spec.name, "settings changed")
        self._changed()
        return backend

    def drain(self, name: str) -> Backend:
        """Give a server no new requests, until `enable`; what it has in flight finishes."""
        backend = self.backends[name]
        if not backend.draining:
            backend.draining = True
            backend.turned_at = self.monotonic()
            self._tag(backend)
            self.events.add("drain", name, f"draining, {backend.in_flight} requests still running")
            self._changed()
        return backend

    def enable(self, name: str) -> Backend:
        """End `drain`."""
        backend = self.backends[name]
        if backend.draining:
            backend.draining = False
            backend.turned_at = self.monotonic()
            self._tag(backend)
            self.events.add("enable", name, "takes requests again")
            self._changed()
        return backend

    def _tag(self, backend: Backend) -> None:
        """Note that a backend has other settings than before, or begins or ends to drain."""
        self._tags += 1
        backend.etag = f'"{self._epoch}-{self._tags}"'

    def adopt(
        self,
        rules: HealthRules,
        circuit_rules: CircuitRules,
        *,
        enforce_capacity: bool,
        learns: bool = True,
    ) -> None:
        """Go on under other rules."""
        self.rules = rules
        self.circuit_rules = circuit_rules
        self.enforce_capacity = enforce_capacity
        self.learning.on = learns
        for backend in self.backends.values():
            backend.health.adopt(rules)
            backend.circuit.rules = circuit_rules
        self._changed()

    # --- what backends told or showed

    def recognised(
        self, backend: Backend, engine: str, *, default_capacity: int, one_at_a_time: bool
    ) -> None:
        """Note which engine a backend is, and what follows from it."""
        is_new = (backend.engine, backend.one_at_a_time) != (engine, one_at_a_time)
        backend.speaks(engine)
        backend.one_at_a_time = one_at_a_time
        backend.size(default=default_capacity)
        backend.rescore(self.monotonic())
        if is_new:
            self.events.add("recognised", backend.name, f"speaks {engine}")
            self._changed()

    def told_capacity(self, backend: Backend, slots: int | None) -> None:
        """Note how many requests the engine says it runs at once; None when it does not."""
        before = backend.slots
        backend.size(told=slots)
        if backend.slots != before:
            self._changed()

    def told_version(self, backend: Backend, version: str | None) -> None:
        """Note the version of a backend's engine; None when it does not say."""
        backend.engine_version = version or backend.engine_version

    def told_models(self, backend: Backend, cards: Mapping[str, ModelCard] | None) -> None:
        """Note the models that a server lists; None when it does not say."""
        backend.cards_at = self.wall()
        if cards == backend.cards:
            return
        known = backend.cards is not None
        before, backend.cards = frozenset(backend.cards or ()), cards
        after = frozenset(cards or ())
        if after != before or not known:
            self.events.add("models", backend.name, f"serves {_named(after)}")
        self._changed()

    def scraped(self, backend: Backend, sample: Sample, own: int, interval: float) -> None:
        """Note what a scrape said, with the router's own count then; one comes each `interval`."""
        now = self.monotonic()
        backend.scrape = Scrape(sample, now, own)
        backend.scrape_expires = now + STALE_AFTER_INTERVALS * interval
        backend.rescore(now)
        self.learning.scraped(backend, sample, now)
        self._first_expires = min(self._first_expires, backend.scrape_expires)

    # --- how they are

    def health(self, backend: Backend, what: Callable[[Health], None]) -> None:
        """Apply one observation to a backend's health and record what changed by it."""
        health = backend.health
        before = (health.state, health.hopeless)
        what(health)
        if (health.state, health.hopeless) == before:
            return
        if health.state is not before[0]:
            self._state_changed(backend)
        if not backend.removed:
            self._changed()

    def _state_changed(self, backend: Backend) -> None:
        health = backend.health
        level = logging.WARNING if health.state is State.DOWN else logging.INFO
        self.events.add(
            health.state.value, backend.name, f"{health.state.value}: {health.reason}", level
        )
        if health.state is State.UP:  # it was away; what requests showed before is no more
            backend.circuit.reset(self.monotonic())
            backend.rest.end()
            backend.unlearn()

    def is_absent(self, backend: Backend, absence: Absence) -> None:
        """Note that nobody listens at a backend's address, and why."""
        backend.absence = absence
        now, reason = self.wall(), absence.reason
        if absence.returns:
            self.health(backend, lambda health: health.is_loading(now, reason))
        else:
            self.health(backend, lambda health: health.check_failed(now, reason, hopeless=True))

    # --- what requests showed

    def request_succeeded(self, backend: Backend, began: float) -> None:
        """Count an answer to a request that went there at `began` (monotonic seconds)."""
        backend.rest.answered()
        if backend.circuit.succeeded(began, self.monotonic()):
            self.events.add("closed", backend.name, "circuit closed: a trial succeeded")
            self._changed()

    def request_failed(self, backend: Backend, reason: str, began: float) -> None:
        """Count a request that the backend failed, and was not at fault itself."""
        if backend.circuit.failed(reason, began, self.monotonic()):
            self._circuit_opened(backend)

    def request_refused(self, backend: Backend) -> None:
        """Note that nobody listens at a backend's address."""
        self.health(backend, lambda health: health.request_refused())

    def is_leaving(self, backend: Backend, reason: str) -> None:
        """Note that a backend itself said that it stops; its health may still be good."""
        if backend.circuit.open(reason, self.monotonic()):
            self._circuit_opened(backend)

    def is_busy(self, backend: Backend, asked: float | None) -> None:
        """Leave a backend in peace that said "busy", for `asked` seconds if it named a time."""
        backend.rest.busy(self.monotonic(), asked)
        self._is_unwell(backend)

    def _circuit_opened(self, backend: Backend) -> None:
        self.events.add(
            "open", backend.name, f"circuit open: {backend.circuit.reason}", logging.WARNING
        )
        self._is_unwell(backend)
        if not backend.removed:
            self._changed()

    def _is_unwell(self, backend: Backend) -> None:
        if not backend.removed:
            self._unwell.add(backend)

    # --- who may take a request

    def lease(self, backend: Backend, why: str = "") -> Lease:
        """Take a place at a backend, which was chosen for the reason `why`."""
        now = self.monotonic()
        if backend.health.state is not State.UP or (
            backend in self._unwell and not backend.is_well(now)
        ):
            self._say_last_resort(backend, now)
        return Lease(self, backend, now, why)

    def _say_last_resort(self, backend: Backend, now: float) -> None:
        """Tell that the least bad server is asked; often it would be for each request."""
        backend.stats.last_resorts += 1
        if now >= self._quiet_until:
            self._quiet_until = now + _SAY_AGAIN
            message = f"asked although it is {backend.condition(now)}: no server is better"
            self.events.add("last resort", backend.name, message, logging.WARNING)

    def candidates(self, model: str | None) -> Sequence[Backend]:
        """Return the backends that are well and can be asked for `model` now (any, for None).

        Those that are up and have it; failing that, those that are up and do not say what
        they have. A circuit that is half-open takes part until its trial has begun.
        """
        if self.monotonic() >= self._first_expires:
            self._rescore()
        found = self._by_model.get(model)
        if found is None:
            found = self._find(model)
        return self._well(found) if self._unwell else found

    def last_resorts(self, model: str | None) -> Sequence[Sequence[Backend]]:
        """Return the other backends that could be asked for `model`, the least bad ones first.

        Those that said "busy", those whose circuit is open, those that health checks took
        out though somebody may still answer there.
        """
        now = self.monotonic()
        takes = [backend for backend in self.backends.values() if not backend.draining]
        up = _serving(model, [backend for backend in takes if backend.is_up])
        busy = [b for b in up if b.circuit.lets_through(now) and not b.rest.is_over(now)]
        broken = [b for b in up if not b.circuit.lets_through(now)]
        down = [b for b in takes if b.health.state is State.DOWN and not b.health.hopeless]
        return busy, broken, _serving(model, down)

    def _find(self, model: str | None) -> list[Backend]:
        up = [b for b in self.backends.values() if b.is_up and not b.draining]
        found = _serving(model, up)
        # Names come from clients: keep only short ones that exist, and not too many.
        if found and len(model or "") <= 256 and len(self._by_model) < 4096:
            self._by_model[model] = found
        return found

    def _well(self, backends: list[Backend]) -> list[Backend]:
        now = self.monotonic()
        for backend in list(self._unwell):
            if backend.circuit.is_closed and backend.rest.is_over(now):
                self._unwell.discard(backend)
        return [b for b in backends if b not in self._unwell or b.is_well(now)]

    def may_have(self, model: str | None, besides: Collection[Backend] = ()) -> bool:
        """Tell whether a backend that is not in `besides` could serve `model` once it is up."""
        return any(
            model is None
            or model in (backend.model_names() or ())
            or (backend.model_names() is None and _not_known_yet(backend))
            for backend in self.backends.values()
            if backend not in besides
        )

    def model_names(self) -> list[str]:
        """Return every model name that clients can ask for, of backends that are up."""
        names: set[str] = set()
        for backend in self.backends.values():
            if backend.is_up:
                names |= backend.model_names() or frozenset()
        return sorted(names)

    def _rescore(self) -> None:
        """Work all kept scores out again, without the scrapes that are too old by now."""
        now = self.monotonic()
        self._first_expires = inf
        for backend in self.backends.values():
            backend.rescore(now)
            backend.reopen(now, learns=self.learning.on)
            if backend.scrape_expires > now:
                self._first_expires = min(self._first_expires, backend.scrape_expires)

    def _changed(self) -> None:
        now = self.monotonic()
        self._by_model.clear()
        self._rescore()
        for backend in self.backends.values():
            backend.cap(enforce=self.enforce_capacity)
            backend.reopen(now, learns=self.learning.on)
        self.some_are_capped = any(b.open_for != inf for b in self.backends.values())
        for listener in self.listeners:
            listener()


def _serving(model: str | None, backends: Collection[Backend]) -> list[Backend]:
    if model is None:
        return list(backends)
    listed = [b for b in backends if model in (b.model_names() or ())]
    return listed or [b for b in backends if b.model_names() is None]


def _named(models: Collection[str]) -> str:
    """Return the names for an event, which is logged and kept: not thousands of them."""
    names = sorted(models)
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "") or "?"


def _not_known_yet(backend: Backend) -> bool:
    return backend.health.state in (State.CHECKING, State.LOADING)
