"""What holds of the queue, the budget and the dispatch whatever happens, in whatever order."""

from __future__ import annotations

import asyncio
from collections import Counter
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
from mvllm_router.proxy.queue import Claim, Queue, Ticket

WHICH = st.integers(0, 7)  # one of those that there are, counted round
MODELS = st.sampled_from(("m", "n", None))


# --- the queue


STEP = 4.0  # seconds that a step of priority counts for
BASES = {"": 0, "alice": 0, "batch": 2}
KEYS = st.sampled_from(tuple(BASES))
ASKED = st.integers(-2, 3)


def ticket_of(key: str, asked: int, model: str | None = "m") -> Ticket[int]:
    return Ticket(Supposed(model), (), 0, Claim.of(key, BASES[key], asked))


def serve_one(queue: Queue[int], now: float) -> Ticket[int]:
    first = queue.first_of_each_kind(now)[0]
    queue.serve(first)
    return first


class QueueMachine(RuleBasedStateMachine):
    """A queue against a plain list, in which all is looked for anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: Queue[int] = Queue()
        self.clock = Clock()
        self.waiting: list[Ticket[int]] = []
        self.gone: list[Ticket[int]] = []
        self.turns: dict[Any, int] = {}  # of each kind and key, when it was served or began
        self.moves = 0
        pool = new_pool()
        pool.events = QuietEvents()
        self.backends = [add_up(pool, name) for name in "ab"]

    def _join(self, ticket: Ticket[int]) -> None:
        self.queue.join(ticket, self.clock(), STEP)
        self.waiting.append(ticket)
        self.moves += 1
        self.turns.setdefault((ticket.kind, ticket.claim.key), self.moves)

    def _gone(self, ticket: Ticket[int]) -> None:
        self.waiting.remove(ticket)
        self.gone.append(ticket)
        lanes = {(one.kind, one.claim.key) for one in self.waiting}
        self.turns = {lane: turn for lane, turn in self.turns.items() if lane in lanes}

    @rule(model=MODELS, tried=st.sets(st.integers(0, 1), max_size=1), key=KEYS, asked=ASKED)
    def join(self, model: str | None, tried: set[int], key: str, asked: int) -> None:
        been = [self.backends[number] for number in tried]
        self._join(
            Ticket(Supposed(model), been, len(self.waiting), Claim.of(key, BASES[key], asked))
        )

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 100))
    def leave(self, which: int) -> None:
        ticket = self.waiting[which % len(self.waiting)]
        assert self.queue.leave(ticket)
        self._gone(ticket)

    @precondition(lambda self: self.gone)
    @rule(which=st.integers(0, 100))
    def leave_again(self, which: int) -> None:
        assert not self.queue.leave(self.gone[which % len(self.gone)])

    @precondition(lambda self: self.gone)
    @rule(which=st.integers(0, 100))
    def come_back(self, which: int) -> None:
        self._join(self.gone.pop(which % len(self.gone)))

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 100))
    def serve_one(self, which: int) -> None:
        heads = self.queue.first_of_each_kind(self.clock())
        ticket = heads[which % len(heads)]  # those of other kinds may have no place
        self.queue.serve(ticket)
        self.moves += 1
        self.turns[ticket.kind, ticket.claim.key] = self.moves
        self._gone(ticket)

    @rule(seconds=st.sampled_from((0.5, 1.0, STEP, 3 * STEP)))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def drain(self) -> None:
        assert self.queue.drain() == self.waiting
        self.gone += self.waiting
        self.waiting.clear()
        self.turns.clear()

    @invariant()
    def it_is_the_list(self) -> None:
        assert self.queue.count == len(self.waiting)
        count, by_key, by_rank = self.queue.waiting()
        assert count == len(self.waiting) == sum(by_rank.values())
        assert by_key == Counter(one.claim.key for one in self.waiting)
        assert by_rank["low"] == sum(one.claim.rank > 0 for one in self.waiting)
        assert self.queue.first_of_each_kind(self.clock()) == self.expected()

    def expected(self) -> list[Ticket[int]]:
        lanes: dict[Any, Ticket[int]] = {}
        for ticket in sorted(self.waiting, key=lambda one: (one.due, one.number)):
            lanes.setdefault((ticket.kind, ticket.claim.key), ticket)
        if len({one.claim.key for one in self.waiting}) < 2:
            return list(lanes.values())
        every = list(lanes.values())
        kinds = dict.fromkeys(one.kind for one in every)
        heads = [self.in_turn([one for one in every if one.kind == kind])[0] for kind in kinds]
        best = min((one.claim.rank for one in every), default=0)
        return self.in_turn(heads, best)

    def in_turn(self, heads: list[Ticket[int]], best: int | None = None) -> list[Ticket[int]]:
        if best is None:
            best = min(one.claim.rank for one in heads)

        def place(one: Ticket[int]) -> tuple[int, int]:
            ripe = self.clock() >= one.joined + (one.claim.rank - best) * STEP
            turn = self.turns[one.kind, one.claim.key]
            return (best if ripe else one.claim.rank), turn

        return sorted(heads, key=place)


@given(st.lists(st.tuples(KEYS, st.integers(0, 3), st.integers(0, 8)), max_size=60))
def test_within_a_key_who_asks_for_the_same_is_served_in_the_order_of_arrival(
    arrivals: list[tuple[str, int, int]],
) -> None:
    queue: Queue[int] = Queue()
    clock = Clock()
    tickets = []
    for key, asked, seconds in arrivals:
        clock.advance(seconds)
        tickets.append(ticket_of(key, asked))
        queue.join(tickets[-1], clock(), STEP)
    places = {id(serve_one(queue, clock())): place for place in range(len(tickets))}
    assert len(places) == len(tickets), "each is served once"
    for number, ticket in enumerate(tickets):
        for later in tickets[number + 1 :]:
            if later.claim == ticket.claim:
                assert places[id(ticket)] < places[id(later)]


@given(
    st.lists(st.sampled_from("aab"), max_size=80),
    st.lists(st.booleans(), max_size=120),
    st.integers(0, 60),
)
def test_two_keys_that_wait_get_the_same_however_many_each_has(
    arrivals: list[str], moves: list[bool], head_start: int
) -> None:
    queue: Queue[int] = Queue()
    clock = Clock()
    ahead = 0  # how many more places `a` got than `b` since both wait
    for key in ["a"] * head_start + ["b"] * 3:
        queue.join(Ticket(Supposed("m"), (), 0, Claim(key)), clock(), STEP)
    for joins in moves:
        clock.advance(1.0)
        if joins and arrivals:
            queue.join(Ticket(Supposed("m"), (), 0, Claim(arrivals.pop())), clock(), STEP)
        elif queue.count:
            ahead += 1 if serve_one(queue, clock()).claim.key == "a" else -1
        if len(queue.waiting().by_key) < 2:
            ahead = 0
        assert abs(ahead) <= 1


@given(
    before=st.lists(st.tuples(KEYS, st.integers(0, 3)), max_size=30),
    key=KEYS,
    asked=st.integers(0, 3),
    after=st.lists(st.tuples(KEYS, st.integers(0, 3)), min_size=200, max_size=200),
)
def test_nobody_starves(
    before: list[tuple[str, int]], key: str, asked: int, after: list[tuple[str, int]]
) -> None:
    """Once it has waited for its steps, all others together are served a bounded number of times.

    That is so however many come meanwhile, whatever they ask for.
    """
    queue: Queue[int] = Queue()
    clock = Clock()
    for one in before:
        queue.join(ticket_of(*one), clock(), STEP)
    ticket = ticket_of(key, asked)
    queue.join(ticket, clock(), STEP)
    clock.advance((BASES[key] + asked) * STEP)
    most = queue.waiting().by_key[key] * len(BASES)
    for places, newcomer in enumerate(after):
        queue.join(ticket_of(*newcomer), clock(), STEP)
        clock.advance(0.001)
        if serve_one(queue, clock()) is ticket:
            assert places < most
            return
    raise AssertionError("it is still waiting")


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
    """Remembers who stood before the one that was served last."""

    def __init__(self) -> None:
        super().__init__()
        self.heads: list[Ticket[Any]] = []
        self.before: list[Ticket[Any]] | None = None

    def first_of_each_kind(self, now: float) -> list[Ticket[Any]]:
        self.heads = super().first_of_each_kind(now)
        return self.heads

    def serve(self, ticket: Ticket[Any]) -> None:
        self.before = self.heads[: self.heads.index(ticket)]
        super().serve(ticket)


class Asker:
    """A client that asks for a place."""

    def __init__(
        self, machine: DispatchMachine, model: str | None, tried: frozenset[Backend], claim: Claim
    ) -> None:
        self.kind = (model, tried)
        self.wanted = (Supposed(model), tried)
        self.claim = claim
        self.at = 0.0  # when it asked, in seconds
        self._machine = machine
        self.task = machine.loop.create_task(self._ask())

    async def _ask(self) -> Lease:
        self.at = self._machine.clock()
        dispatch = self._machine.dispatch
        lease = dispatch.lease_now(*self.wanted) or await dispatch.wait(*self.wanted, self.claim)
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
        before, self.queue.before = self.queue.before, None
        if before is None:  # it has just come, and has not waited
            before = self.queue.first_of_each_kind(self.clock())
        for ticket in before:
            if not ticket.tell.done():
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
        key=st.sampled_from(("", "", "alice", "batch")),
        asked=st.sampled_from((0, 0, 1, -1)),
    )
    def ask(
        self,
        model: str | None,
        tried: tuple[int, ...],
        count: int,
        rounds: int,
        key: str = "",
        asked: int = 0,
    ) -> None:
        been = frozenset(self.one(which) for which in tried) if self.pool.backends else frozenset()
        claim = Claim.of(key, BASES[key], asked)
        self.askers += [Asker(self, model, been, claim) for _ in range(count)]
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
                same = (asker.kind, asker.claim)
                later = [one for one in self.askers[number:] if (one.kind, one.claim) == same]
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
