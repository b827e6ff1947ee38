"""A pool under everything that servers, clients and operators do to it, in any order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pool_kit import Clock, QuietEvents, scraped, spec

from mvllm_router.pool import Backend, CircuitRules, Health, HealthRules, Lease, Pool

MODELS = ("m", "n")
# Seconds: within a window, around the waits of a circuit, beyond all of them. Sums of these are
# exact also as floats.
STEPS = st.sampled_from((0.0, 1 / 64, 0.25, 0.5, 1.0, 2.0, 4.875, 5.0, 10.0, 61.0))
WHICH = st.integers(0, 7)  # one of those that there are, counted round
CAPACITIES = st.sampled_from((None, 1, 2, 5))
CHECKS: dict[str, Callable[[Health], None]] = {
    "passed": lambda health: health.check_passed(1.0, 0.01),
    "failed": lambda health: health.check_failed(1.0, "status 500"),
    "refused": lambda health: health.check_failed(1.0, "refused", hopeless=True),
    "loading": lambda health: health.is_loading(1.0, "loading"),
    "trusted": lambda health: health.trust_again("tried again"),
    "refused request": lambda health: health.request_refused(),
}


class PoolMachine(RuleBasedStateMachine):
    """What holds of a pool after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.pool = Pool(
            HealthRules(consecutive_failures=2),
            CircuitRules(threshold=2, window=5.0, longest_wait=4.0),
            monotonic=self.clock,
            wall=lambda: 1_700_000_000.0 + self.clock(),
        )
        self.pool.events = QuietEvents()
        self.ever: list[Backend] = []
        self.open: list[Lease] = []  # leases that are not released
        self.openings: dict[Backend, int] = {}

    def one(self, which: int) -> Backend:
        backends = list(self.pool.backends.values())
        return backends[which % len(backends)]

    @property
    def has_backends(self) -> bool:
        return bool(self.pool.backends)

    # --- operators

    @initialize()
    def begin_with_one(self) -> None:
        self.add("a", ("m",), None)
        self.check(0, "passed")

    @rule(
        name=st.sampled_from("abcd"),
        models=st.sampled_from(((), ("m",), ("n",), MODELS)),
        capacity=CAPACITIES,
    )
    def add(self, name: str, models: tuple[str, ...], capacity: int | None) -> None:
        if name not in self.pool.backends:
            self.ever.append(self.pool.add(spec(name, capacity, models=models)))

    @precondition(lambda self: self.has_backends)
    @rule(which=WHICH)
    def remove(self, which: int) -> None:
        self.pool.remove(self.one(which).name)

    @precondition(lambda self: self.has_backends)
    @rule(which=WHICH, models=st.sampled_from(((), ("n",), MODELS)), capacity=CAPACITIES)
    def update(self, which: int, models: tuple[str, ...], capacity: int | None) -> None:
        old = self.one(which).spec
        self.pool.update(replace(old, models=models, max_concurrent_requests=capacity))

    @precondition(lambda self: self.has_backends)
    @rule(which=WHICH, drain=st.booleans())
    def drain(self, which: int, drain: bool) -> None:
        (self.pool.drain if drain else self.pool.enable)(self.one(which).name)

    @rule(enforce=st.booleans(), threshold=st.integers(1, 3))
    def reload(self, enforce: bool, threshold: int) -> None:
        rules = replace(self.pool.circuit_rules, threshold=threshold)
        self.pool.adopt(self.pool.rules, rules, enforce_capacity=enforce)

    # --- what servers show

    @rule(seconds=STEPS)
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.has_backends)
    @rule(which=WHICH, what=st.sampled_from(sorted(CHECKS)))
    def check(self, which: int, what: str) -> None:
        self.pool.health(self.one(which), CHECKS[what])

    @precondition(lambda self: self.has_backends)
    @rule(which=WHICH, models=st.sampled_from((None, (), ("m",), MODELS)))
    def tell_models(self, which: int, models: tuple[str, ...] | None) -> None:
        cards = None if models is None else {model: {"id": model} for model in models}
        self.pool.told_models(self.one(which), cards)

    @precondition(lambda self: self.has_backends)
    @rule(which=WHICH, one=st.booleans(), slots=st.sampled_from((None, 1, 3)))
    def recognise(self, which: int, one: bool, slots: int | None) -> None:
        backend = self.one(which)
        self.pool.recognised(backend, "vllm", default_capacity=4, one_at_a_time=one)
        self.pool.told_capacity(backend, slots)

    @precondition(lambda self: self.has_backends)
    @rule(which=WHICH, running=st.integers(0, 3), waiting=st.integers(0, 2))
    def scrape(self, which: int, running: int, waiting: int) -> None:
        scraped(self.pool, self.one(which), running, waiting)

    @precondition(lambda self: self.has_backends)
    @rule(which=WHICH, version=st.sampled_from((None, "1", "2")))
    def tell_version(self, which: int, version: str | None) -> None:
        self.pool.told_version(self.one(which), version)

    # --- requests

    @rule(model=st.sampled_from((*MODELS, None)), which=WHICH)
    def begin(self, model: str | None, which: int) -> None:
        found = list(self.pool.candidates(model))
        found = found or [b for sort in self.pool.last_resorts(model) for b in sort]
        found = [backend for backend in found if backend.has_room]
        if found:
            self._lease(found[which % len(found)])

    @precondition(lambda self: self.has_backends)
    @rule(which=WHICH)
    def ask_again(self, which: int) -> None:
        """Take a place on one backend, however it looks."""
        self._lease(self.one(which))

    def _lease(self, backend: Backend) -> None:
        is_due = not backend.circuit.is_closed and backend.circuit.lets_through(self.clock())
        self.open.append(self.pool.lease(backend))
        assert self.open[-1].is_trial is is_due

    @precondition(lambda self: self.has_backends)
    @rule(which=WHICH)
    def break_down(self, which: int) -> None:
        """Let a backend fail as many requests as it takes, and wait for the first trial."""
        for _ in range(3):
            self.pool.request_failed(self.one(which), "connection reset", self.clock())
        assert not self.one(which).circuit.is_closed
        self.clock.advance(1.0)

    @precondition(lambda self: self.open)
    @rule(which=WHICH, how=st.sampled_from(("good", "bad", "busy", "asks", "leaves", "refused")))
    def show(self, which: int, how: str) -> None:
        lease = self.open[which % len(self.open)]
        backend, pool = lease.backend, self.pool
        if how == "good":
            pool.request_succeeded(backend, lease.began)
        elif how == "bad":
            pool.request_failed(backend, "connection reset", lease.began)
        elif how == "leaves":
            pool.is_leaving(backend, "it is shutting down")
        elif how == "refused":
            pool.request_refused(backend)
        else:
            pool.is_busy(backend, 3.0 if how == "asks" else None)

    @precondition(lambda self: self.open)
    @rule(which=WHICH, times=st.integers(1, 3))
    def release(self, which: int, times: int) -> None:
        lease = self.open.pop(which % len(self.open))
        for _ in range(times):
            lease.release()

    # --- what holds

    @invariant()
    def counts_are_exact(self) -> None:
        for backend in self.ever:
            assert backend.in_flight == sum(lease.backend is backend for lease in self.open)

    @invariant()
    def candidates_are_those_that_a_fresh_look_finds(self) -> None:
        now = self.clock()
        for model in (*MODELS, None, "unknown"):
            well = [b for b in self._up(model) if b.is_well(now)]
            assert list(self.pool.candidates(model)) == well, model

    @invariant()
    def whoever_is_well_and_lists_the_model_is_a_candidate(self) -> None:
        now = self.clock()
        for backend in self.pool.backends.values():
            fine = backend.circuit.is_closed and backend.rest.is_over(now)
            if backend.is_up and fine and not backend.draining:
                for model in backend.model_names() or ():
                    assert backend in self.pool.candidates(model)

    @invariant()
    def whoever_is_up_is_a_candidate_or_a_resort_and_never_both(self) -> None:
        for model in (*MODELS, None):
            busy, broken, down = self.pool.last_resorts(model)
            up = [*self.pool.candidates(model), *busy, *broken]
            assert sorted(map(id, up)) == sorted(map(id, self._up(model)))
            for backend in down:
                assert not backend.is_up
                assert not backend.health.hopeless
                assert not backend.draining
                assert backend.name in self.pool.backends

    @invariant()
    def a_circuit_has_one_trial_at_most_and_none_that_is_gone(self) -> None:
        for backend in self.ever:
            circuit = backend.circuit
            running = [
                lease
                for lease in self.open
                if lease.backend is backend and lease.is_trial and lease.began > circuit.since
            ]
            assert len(running) <= 1
            assert circuit.is_closed or len(running) == circuit.trial
            assert not (circuit.is_closed and circuit.trial)

    @invariant()
    def caps_are_what_they_depend_on(self) -> None:
        backends = list(self.pool.backends.values())
        for backend in backends:
            told = backend.spec.max_concurrent_requests or backend.told_capacity
            cap = told or backend.default_capacity if self.pool.enforce_capacity else inf
            assert backend.most == (1 if backend.one_at_a_time else cap)
            assert backend.open_for <= backend.most
        assert self.pool.some_are_capped >= any(b.open_for < inf for b in backends)

    @invariant()
    def openings_only_grow(self) -> None:
        for backend in self.ever:
            assert backend.circuit.openings >= self.openings.get(backend, 0)
            self.openings[backend] = backend.circuit.openings

    def teardown(self) -> None:
        """When all has ended and some time has passed, everybody has got over it."""
        for lease in self.open:
            lease.release()
        self.clock.advance(100)
        assert [backend.in_flight for backend in self.ever] == [0] * len(self.ever)
        for model in (*MODELS, None):
            assert list(self.pool.candidates(model)) == self._up(model)

    def _up(self, model: str | None) -> list[Backend]:
        """Return those that are up, take requests, and have `model` or may have it."""
        up = [b for b in self.pool.backends.values() if b.is_up and not b.draining]
        if model is None:
            return up
        listed = [b for b in up if model in (b.model_names() or ())]
        return listed or [b for b in up if b.model_names() is None]
