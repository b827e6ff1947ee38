"""What holds of the queue, the budget and the dispatch whatever happens, in whatever order."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pool_kit import Clock, QuietEvents, add_up, checked, new_pool, open_circuit, refuse

from mvllm_router.errors import NoBackend, RouterError
from mvllm_router.policies import Policies, Supposed
from mvllm_router.pool import Backend, Lease, Pool
from mvllm_router.proxy.budget import RetryBudget
from mvllm_router.proxy.dispatch import Dispatch, QueueRules
from mvllm_router.proxy.queue import Queue, Ticket

WHICH = st.integers(0, 7)  # one of those that there are, counted round
MODELS = st.sampled_from(("m", "n", None))


# --- the queue


class QueueMachine(RuleBasedStateMachine):
    """A queue against a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: Queue[int] = Queue()
        self.waiting: list[Ticket[int]] = []
        self.gone: list[Ticket[int]] = []
        pool = new_pool()
        pool.events = QuietEvents()
        self.backends = [add_up(pool, name) for name in "ab"]

    @rule(model=MODELS, tried=st.sets(st.integers(0, 1)))
    def join(self, model: str | None, tried: set[int]) -> None:
        ticket = Ticket(
            Supposed(model), [self.backends[number] for number in tried], len(self.waiting), 0.0
        )
        self.queue.join(ticket)
        self.waiting.append(ticket)

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 100))
    def leave(self, which: int) -> None:
        ticket = self.waiting.pop(which % len(self.waiting))
        assert self.queue.leave(ticket)
        self.gone.append(ticket)

    @precondition(lambda self: self.gone)
    @rule(which=st.integers(0, 100))
    def leave_again(self, which: int) -> None:
        assert not self.queue.leave(self.gone[which % len(self.gone)])

    @precondition(lambda self: self.gone)
    @rule(which=st.integers(0, 100))
    def come_back(self, which: int) -> None:
        ticket = self.gone.pop(which % len(self.gone))
        self.queue.join(ticket)
        self.waiting.append(ticket)

    @precondition(lambda self: self.waiting)
    @rule()
    def serve_the_first(self) -> None:
        ticket = self.queue.first_of_each_kind()[0]
        assert ticket is self.waiting.pop(0)
        assert self.queue.leave(ticket)
        self.gone.append(ticket)

    @rule()
    def drain(self) -> None:
        assert self.queue.drain() == self.waiting
        self.gone += self.waiting
        self.waiting.clear()

    @invariant()
    def it_is_the_list(self) -> None:
        assert self.queue.count == len(self.waiting)
        heads: dict[Any, Ticket[int]] = {}
        for ticket in self.waiting:
            heads.setdefault((ticket.model, ticket.tried), ticket)
        assert self.queue.first_of_each_kind() == list(heads.values())


# --- the retry budget


@given(
    st.lists(
        st.tuples(st.sampled_from(("requests", "retries", "time")), st.integers(1, 60)),
        max_size=40,
    )
)
def test_retries_are_never_more_than_requests_and_time_have_paid(
    events: list[tuple[str, int]],
) -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    requests = retries = 0
    for what, count in events:
        if what == "time":
            clock.advance(count / 32)
        for _ in range(count):
            if what == "requests":
                budget.request()
                requests += 1
            elif what == "retries":
                retries += budget.take()
                paid = 10 + 0.2 * requests + 10 * (clock() - 1000.0)
                assert retries <= paid + 1e-6
                assert budget._balance >= 0


@given(st.lists(st.integers(0, 50), max_size=10), st.integers(1, 9))
def test_a_second_is_enough_for_ten_retries_whatever_was_before(
    bursts: list[int], tenths: int
) -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    for burst in bursts:
        for _ in range(burst):
            budget.take()
        clock.advance(tenths / 8)
    clock.advance(1.0)
    assert [budget.take() for _ in range(10)] == [True] * 10


# --- dispatch


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when told, and which runs as many rounds as told."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.timers: list[asyncio.TimerHandle] = []
        self.mishaps: list[dict[str, Any]] = []  # errors that nobody would see but the log
        self.set_exception_handler(lambda _, context: self.mishaps.append(context))

    def time(self) -> float:
        return self._clock()

    def call_later(self, delay: float, *args: Any, **more: Any) -> asyncio.TimerHandle:
        timer = super().call_later(delay, *args, **more)
        self.timers.append(timer)
        return timer

    @property
    def running(self) -> int:
        """How many timers have yet to go off."""
        now = self.time()
        return sum(not timer.cancelled() and timer.when() > now for timer in self.timers)

    def run(self, rounds: int) -> None:
        async def wait() -> None:
            for _ in range(rounds):
                await asyncio.sleep(0)

        self.run_until_complete(wait())


class WatchedQueue(Queue[Any]):
    """Remembers who left it last."""

    left: Ticket[Any] | None = None

    def leave(self, ticket: Ticket[Any]) -> bool:
        was_in = super().leave(ticket)
        self.left = ticket if was_in else self.left
        return was_in


class Asker:
    """A client that asks for a place."""

    def __init__(
        self, machine: DispatchMachine, model: str | None, tried: frozenset[Backend]
    ) -> None:
        self.kind = (model, tried)
        self.wanted = (Supposed(model), tried)
        self.at = 0.0  # when it asked, in seconds
        self._machine = machine
        self.task = machine.loop.create_task(self._ask())

    async def _ask(self) -> Lease:
        self.at = self._machine.clock()
        self._machine.queue.left = None
        dispatch = self._machine.dispatch
        lease = dispatch.lease_now(*self.wanted) or await dispatch.wait(*self.wanted)
        assert lease.backend not in self.kind[1], "it has been there"
        return lease


HARMS = ("stop", "remove", "drain", "refuse", "break", "shrink")
SETTLED = 10
ROUNDS = st.sampled_from((0, 1, 2, SETTLED, SETTLED))  # of the event loop


class DispatchMachine(RuleBasedStateMachine):
    """Clients that come, wait and leave, over servers that come, go and change."""

    TIMEOUT = 8.0
    LIMIT = 12

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.loop = Loop(self.clock)
        self.pool: Pool = new_pool(self.clock, enforce=True)
        self.pool.events = QuietEvents()
        rules = QueueRules(enforce_capacity=True, max_queue=self.LIMIT, timeout=self.TIMEOUT)
        self.dispatch = Dispatch(self.pool, Policies("round_robin"), rules)
        self.queue = self.dispatch._queue = WatchedQueue()
        self.askers: list[Asker] = []  # in the order in which they came
        self.leases: list[Lease] = []  # all that were ever given
        self.must_look = False  # time, or a rest, may have made a place that nobody was told of
        self._lease = self.pool.lease
        self.pool.lease = self.give  # type: ignore[method-assign]

    def give(self, backend: Backend, why: str = "") -> Lease:
        """Stand for `Pool.lease`: a place must be there, and nobody be before whoever gets it."""
        assert backend.has_room, "more than it can run"
        assert not backend.removed
        assert not backend.draining
        served, self.queue.left = self.queue.left, None
        for ticket in self.queue.first_of_each_kind():
            before = served is None or ticket.number < served.number
            if before and not ticket.tell.done():
                assert backend not in self.open_to(ticket.model, ticket.tried), "overtaken"
        lease = self._lease(backend, why)
        self.leases.append(lease)
        return lease

    def open_to(self, model: str | None, tried: frozenset[Backend]) -> list[Backend]:
        """Return those that could serve such a request now: of the best sort, with room."""
        sorts = [self.pool.candidates(model), *self.pool.last_resorts(model)]
        left = [[b for b in sort if b not in tried] for sort in sorts]
        return [b for b in next(filter(None, left), []) if b.has_room]

    def one(self, which: int) -> Backend:
        backends = list(self.pool.backends.values())
        return backends[which % len(backends)]

    @property
    def waiting(self) -> list[Asker]:
        return [asker for asker in self.askers if not asker.task.done()]

    @property
    def held(self) -> list[Lease]:
        return [lease for lease in self.leases if not lease.released]

    def then(self, rounds: int) -> None:
        """Let the event loop run for some rounds; with `SETTLED` until all have noticed."""
        if rounds == SETTLED:
            self.settle()
        elif rounds:
            self.loop.run(rounds)

    # --- clients

    @initialize(capacities=st.lists(st.integers(1, 2), min_size=1, max_size=3))
    def begin(self, capacities: list[int]) -> None:
        for name, capacity in zip("abc", capacities, strict=False):
            add_up(self.pool, name, *(("m",) if name == "b" else ("m", "n")), capacity=capacity)
        self.ask("m", (), 5, SETTLED)

    @rule(
        model=st.sampled_from(("m", "m", "n", None)),
        tried=st.sampled_from(((), (), (0,), (1,), (0, 1))),
        count=st.integers(1, 6),
        rounds=ROUNDS,
    )
    def ask(self, model: str | None, tried: tuple[int, ...], count: int, rounds: int) -> None:
        been = frozenset(self.one(which) for which in tried) if self.pool.backends else frozenset()
        self.askers += [Asker(self, model, been) for _ in range(count)]
        self.then(rounds)

    @precondition(lambda self: self.held)
    @rule(which=WHICH, times=st.integers(1, 2), rounds=ROUNDS)
    def release(self, which: int, times: int, rounds: int) -> None:
        lease = self.held[which % len(self.held)]
        for _ in range(times):
            lease.release()
        self.then(rounds)

    @precondition(lambda self: self.held)
    @rule(which=WHICH, seconds=st.sampled_from((1.0, 7.75, 8.0)))
    def release_later(self, which: int, seconds: float) -> None:
        """Also in the moment of a deadline, as the event loop sees it."""
        lease = self.held[which % len(self.held)]
        self.loop.call_at(self.clock() + seconds, lease.release)

    @precondition(lambda self: self.waiting)
    @rule(which=WHICH, rounds=ROUNDS)
    def leave(self, which: int, rounds: int) -> None:
        self.waiting[which % len(self.waiting)].task.cancel()
        self.then(rounds)

    @precondition(lambda self: self.held and self.waiting)
    @rule(which=WHICH, count=st.integers(1, 3), rounds=st.integers(0, 2))
    def leave_as_a_place_comes(self, which: int, count: int, rounds: int) -> None:
        self.release(which, 1, 0)
        self.then(rounds)
        for asker in self.waiting[:count]:
            asker.task.cancel()
        self.settle()

    @rule(seconds=st.sampled_from((0.25, 1.0, 1.0, 2.0, 8.0)))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.must_look = True

    @rule()
    def look(self) -> None:
        self.dispatch.hand_over()
        self.must_look = False

    # --- servers

    @precondition(lambda self: self.pool.backends)
    @rule(which=WHICH, what=st.sampled_from(HARMS))
    def harm(self, which: int, what: str) -> None:
        pool, backend = self.pool, self.one(which)
        if what == "stop":
            self.dispatch.stop(NoBackend("The router is stopping."))
            assert self.dispatch.waiting == 0
        elif what == "remove":
            pool.remove(backend.name)
        elif what == "drain":
            pool.drain(backend.name)
        elif what == "refuse":
            refuse(pool, backend)
        elif what == "break":
            open_circuit(pool, backend)
        else:
            pool.update(replace(backend.spec, max_concurrent_requests=1))

    @rule(capacities=st.lists(st.integers(1, 3), min_size=3, max_size=3), rounds=ROUNDS)
    def mend(self, capacities: list[int], rounds: int) -> None:
        """Let all servers be well, each with room for so many."""
        pool = self.pool
        for name, capacity in zip("abc", capacities, strict=True):
            backend = pool.backends.get(name)
            if backend is None:
                add_up(pool, name, "m", capacity=capacity)
                continue
            pool.enable(name)
            pool.update(replace(backend.spec, max_concurrent_requests=capacity))
            pool.request_succeeded(backend, self.clock())
            for _ in range(2):
                checked(pool, backend)
        self.then(rounds)

    @precondition(lambda self: self.pool.backends)
    @rule(which=WHICH, seconds=st.sampled_from((1.0, 2.0)), early=st.integers(0, 4))
    def rest(self, which: int, seconds: float, early: int) -> None:
        """Let a backend rest: some ask meanwhile, some when it is just over."""
        backend = self.one(which)
        while backend.in_flight > 1:
            next(lease for lease in self.held if lease.backend is backend).release()
        self.pool.is_busy(backend, seconds)
        self.ask("m", (), early, 2)
        self.time_passes(seconds)
        self.ask("m", (), 2, SETTLED)

    # --- what holds at any moment

    @invariant()
    def counts_are_exact(self) -> None:
        for backend in {*self.pool.backends.values(), *(lease.backend for lease in self.leases)}:
            assert backend.in_flight == sum(lease.backend is backend for lease in self.held)

    @invariant()
    def the_queue_is_no_longer_than_its_limit(self) -> None:
        assert self.queue.count == self.dispatch.waiting <= self.LIMIT

    # --- what holds once all have noticed

    @rule()
    def settle(self) -> None:
        """Let all run that can run: nobody waits in vain, too long, or behind a later one."""
        if self.must_look:
            self.look()
        self.loop.run(SETTLED)
        assert self.loop.mishaps == []
        waiting = self.waiting
        assert self.dispatch.waiting == len(waiting) == self.loop.running
        for asker in waiting:
            assert not self.open_to(*asker.kind), "it waits in front of a free place"
            assert self.clock() - asker.at < self.TIMEOUT
        for number, asker in enumerate(self.askers):
            if not asker.task.done():
                later = [other for other in self.askers[number:] if other.kind == asker.kind]
                assert not any(_has_place(other.task) for other in later), "overtaken"
        owned = [asker.task.result() for asker in self.askers if _has_place(asker.task)]
        assert {id(lease) for lease in self.held} <= {id(lease) for lease in owned}, "a lost place"
        self.askers = [a for a in self.askers if not a.task.done() or _holds(a.task)]

    def teardown(self) -> None:
        """Nothing is left when all have gone."""
        for asker in self.askers:
            asker.task.cancel()
        self.loop.run(SETTLED)
        for asker in self.askers:
            if _has_place(asker.task):
                asker.task.result().release()
        assert self.dispatch.waiting == 0
        assert self.held == []
        self.loop.close()


def _has_place(task: asyncio.Task[Lease]) -> bool:
    if not task.done() or task.cancelled():
        return False
    error = task.exception()
    assert error is None or isinstance(error, RouterError), error
    return error is None


def _holds(task: asyncio.Task[Lease]) -> bool:
    return _has_place(task) and not task.result().released


TestQueue = QueueMachine.TestCase
TestDispatch = DispatchMachine.TestCase
