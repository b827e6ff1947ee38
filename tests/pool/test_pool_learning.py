"""With nothing told, the router finds out what its servers can run and how fast they are."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

import pytest
from pool_kit import Clock, add_up, new_pool, scraped

from mvllm_router.policies import Supposed
from mvllm_router.policies.least_load import LeastLoad
from mvllm_router.pool import Backend, Lease, Pool, Sample
from mvllm_router.pool.learned import Places, Speed, share_of_fastest
from mvllm_router.pool.stats import BackendStats

WISH = Supposed("m")
PER_TOKEN, PREFILL, TOKENS = 0.015, 0.01, 20  # seconds of a server at full speed, and a mean


@dataclass
class Server:
    """A server that runs `slots` requests and lets the others wait, first come first served."""

    slots: int
    speed: float = 1.0
    running: int = 0
    waiting: deque[Any] = field(default_factory=deque)

    @property
    def rate(self) -> float:
        """Requests that it can answer in a second."""
        return self.slots * self.speed / (PREFILL + (TOKENS - 1) * PER_TOKEN)


class World:
    """Streams that arrive at random at servers of which the pool knows nothing; time is made up.

    `tuned`: somebody set the right weights and limits by hand instead, as HAProxy has them.
    """

    def __init__(
        self, *servers: Server, load: float, capacity: int | None = None, tuned: bool = False
    ) -> None:
        self._tuned = tuned
        self.clock = Clock()
        self.pool: Pool = new_pool(self.clock)
        self.servers = {
            add_up(self.pool, f"s{number}", "m", capacity=capacity): server
            for number, server in enumerate(servers)
        }
        self.first_tokens: list[float] = []  # seconds until each, of those that came lately
        self._policy, self._random = LeastLoad(random.Random(1).random), random.Random(2)
        self._rate = load * sum(server.rate for server in servers)
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._held: deque[tuple[float, int]] = deque()
        self.pool.on_release = lambda _: self._hand_over()
        self._arrive()
        self._every_second()

    def run(self, seconds: float) -> None:
        until = self.clock() + seconds
        while self._agenda[0][0] <= until:
            at, _, what = heapq.heappop(self._agenda)
            self.clock.now = at
            what()
        self.clock.now = until

    def _in(self, seconds: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._agenda, (self.clock() + seconds, self._count, what))

    def _every_second(self) -> None:
        for backend, server in self.servers.items():
            sample = Sample(float(server.running), float(len(server.waiting)))
            self.pool.scraped(backend, sample, backend.in_flight, 1.0)
        self.pool.learning.look()
        if self._held:
            self.pool.learning.try_more(len(self._held))
            self._hand_over()
        self._in(1.0, self._every_second)

    def _arrive(self) -> None:
        tokens = 1 + int(self._random.expovariate(1 / (TOKENS - 1)))
        self._held.append((self.clock(), tokens))
        self._hand_over()
        self._in(self._random.expovariate(self._rate), self._arrive)

    def _hand_over(self) -> None:
        while self._held:
            backend = self._choose_by_hand() if self._tuned else self._choose()
            if backend is None:
                return
            self._send(*self._held.popleft(), self.pool.lease(backend))

    def _choose(self) -> Backend | None:
        open_ones = [one for one in self.servers if one.in_flight < one.open_for]
        return self._policy.choose(open_ones, WISH, self.clock())[0] if open_ones else None

    def _choose_by_hand(self) -> Backend | None:
        open_ones = [one for one, server in self.servers.items() if server.running < server.slots]
        return min(
            open_ones,
            key=lambda one: one.in_flight / self.servers[one].rate,
            default=None,
        )

    def _send(self, came: float, tokens: int, lease: Lease) -> None:
        server = self.servers[lease.backend]
        if server.running < server.slots:
            self._begin(came, tokens, lease)
        else:
            server.waiting.append((came, tokens, lease))

    def _begin(self, came: float, tokens: int, lease: Lease) -> None:
        server = self.servers[lease.backend]
        server.running += 1
        gap = PER_TOKEN / server.speed

        def first() -> None:
            self.first_tokens.append(self.clock() - came)
            lease.begins()
            self._in((tokens - 1) * gap, end)

        def end() -> None:
            stats = lease.backend.stats
            for _ in range(tokens - 1):
                stats.inter_token.observe(gap)
            server.running -= 1
            if server.waiting:
                self._begin(*server.waiting.popleft())
            lease.release()

        self._in(PREFILL / server.speed, first)

    def learned(self) -> list[int]:
        return [round(backend.places.runs) for backend in self.servers]

    def shares(self) -> list[float]:
        return [backend.share for backend in self.servers]


FLEET = (3, 1.0), (5, 0.5), (10, 0.5), (20, 1.0)


def fleet() -> list[Server]:
    return [Server(slots, speed) for slots, speed in FLEET]


@pytest.mark.parametrize("load", [0.8, 0.95])
@pytest.mark.parametrize("told", [None, 2, 40], ids=["nothing", "too-little", "too-much"])
def test_what_servers_can_run_and_how_fast_is_found_out(load: float, told: int | None) -> None:
    world = World(*fleet(), load=load, capacity=told)
    world.run(60.0)
    assert world.learned() == [3, 5, 10, 20]
    assert world.shares() == [1.0, 0.5, 0.5, 1.0]


@pytest.mark.parametrize("load", [0.5, 0.83, 0.95])
def test_after_half_a_minute_first_tokens_come_as_soon_as_if_all_had_been_set_by_hand(
    load: float,
) -> None:
    figures = []
    for tuned in (False, True):
        world = World(*fleet(), load=load, tuned=tuned)
        world.run(30.0)
        world.first_tokens.clear()
        world.run(60.0)
        waits = sorted(world.first_tokens)
        figures.append((sum(waits) / len(waits), waits[int(len(waits) * 0.99)]))
    (mean, p99), (mean_by_hand, p99_by_hand) = figures
    assert mean < 1.3 * mean_by_hand
    assert p99 < 1.3 * p99_by_hand


def test_a_server_that_becomes_half_as_fast_is_noticed_within_ten_seconds() -> None:
    world = World(Server(8), Server(8), load=0.6)
    world.run(30.0)
    assert world.shares() == [1.0, 1.0]
    next(iter(world.servers.values())).speed = 0.5
    world.run(10.0)
    assert world.shares()[0] == pytest.approx(0.5, abs=0.1)
    assert world.shares()[1] == 1.0


def test_a_server_that_can_run_less_than_before_is_noticed() -> None:
    world = World(Server(20), Server(20), load=0.7, capacity=20)
    world.run(10.0)
    next(iter(world.servers.values())).slots = 5
    world.run(40.0)
    assert world.learned() == [5, 20]


def test_a_server_that_can_run_more_than_before_is_noticed_though_nothing_more_is_sent() -> None:
    server = Server(4)
    world = World(server, load=1.5)
    world.run(20.0)
    assert world.learned() == [4]
    server.slots = 30
    world.run(40.0)
    assert world.learned() == [30]


def test_servers_of_which_nothing_is_known_count_as_much_as_the_most_that_one_was_seen_to_run() -> (
    None
):
    pool = new_pool()
    one, other = add_up(pool, "one", "m"), add_up(pool, "other", "m")
    for backend in (one, other):
        scraped(pool, backend, running=0)
    for lease in [pool.lease(one) for _ in range(30)]:
        lease.begins()
    pool.learning.look()
    assert (one.slots, other.slots) == (30, 30)


def test_what_one_server_runs_says_nothing_of_those_that_are_not_like_it() -> None:
    pool = new_pool()
    big, without_metrics, another = (add_up(pool, name, "m") for name in ("a", "b", "c"))
    other_model = add_up(pool, "d", "n")
    for backend, engine in ((big, "vllm"), (without_metrics, "mlx"), (another, "llama.cpp")):
        pool.recognised(backend, engine, default_capacity=8, one_at_a_time=False)
    pool.recognised(other_model, "vllm", default_capacity=8, one_at_a_time=False)
    for backend, running in ((big, 200), (another, 0), (other_model, 0)):
        scraped(pool, backend, running=running)
    pool.learning.look()
    slots = (big.slots, without_metrics.slots, another.slots, other_model.slots)
    assert slots == (200, 8, 8, 8)


def waits(places: Places, running: float) -> None:
    places.saw(running, 1.0)


def test_one_sight_of_a_queue_is_no_limit_yet() -> None:
    places = Places()
    waits(places, 5.0)
    assert places.open_for == inf
    waits(places, 5.0)
    assert places.open_for == 5


def test_a_queue_behind_a_long_prompt_is_not_taken_for_the_limit() -> None:
    places = Places()
    places.saw(40.0, 0.0)
    waits(places, 3.0)
    assert places.runs == 32.0
    assert places.open_for == inf


def test_what_answers_more_at_once_than_its_limit_can_run_more() -> None:
    places = Places()
    places.assume(4)
    places.saw_running(9.0)
    assert places.open_for == 9


def test_a_try_is_one_request_and_the_next_one_is_later_each_time() -> None:
    places = Places()
    places.assume(4)
    assert places.may_try(0.0, 9)
    assert places.open_for == 5
    assert places.took(5)
    assert places.open_for == 4
    assert not places.may_try(0.9, 9)
    assert places.may_try(1.0, 9)
    assert places.took(5)
    assert not places.may_try(2.9, 9)
    assert places.may_try(3.0, 9)


def test_after_a_try_that_went_well_twice_as_many_are_tried_at_once() -> None:
    places = Places()
    places.assume(4)
    for limit, tried in ((4, 1), (5, 2), (7, 4), (11, 8)):
        assert places.open_for == limit
        assert places.may_try(0.0, 9)
        for in_flight in range(limit + 1, limit + tried):
            assert not places.took(in_flight)
            assert places.open_for == limit + tried
        assert places.took(limit + tried)
        assert places.open_for == limit
        places.saw_running(limit + tried)


@pytest.mark.parametrize("gap", [0.01, 0.04])
def test_speed_is_what_streams_show(gap: float) -> None:
    stats = BackendStats()
    speed = Speed(stats)
    for _ in range(100):
        stats.inter_token.observe(gap)
    speed.look(stats, 0.0)
    assert speed.tokens_per_second == pytest.approx(1 / gap)


def test_several_tokens_in_an_event_are_as_much_faster() -> None:
    stats = BackendStats()
    speed = Speed(stats)
    stats.whole_events, stats.whole_tokens = 100, 200
    for _ in range(100):
        stats.inter_token.observe(0.02)
    speed.look(stats, 0.0)
    assert speed.tokens_per_second == pytest.approx(100.0)


def test_without_streams_the_engines_own_count_shows_the_speed() -> None:
    speed = Speed(BackendStats())
    for second in range(3):
        speed.told(Sample(4.0, 0.0, generation_tokens=200.0 * second), float(second))
    assert speed.tokens_per_second == pytest.approx(50.0)


def test_an_engine_that_was_started_anew_is_not_taken_for_a_slow_one() -> None:
    speed = Speed(BackendStats())
    for second, tokens in enumerate((1000.0, 1200.0, 0.0, 200.0)):
        speed.told(Sample(4.0, 0.0, generation_tokens=tokens), float(second))
    assert speed.tokens_per_second == pytest.approx(50.0)


def test_servers_are_compared_with_those_that_have_a_model_in_common() -> None:
    big, small, both = frozenset({"big"}), frozenset({"small"}), frozenset({"big", "small"})
    found = share_of_fastest([(big, 20.0), (big, 10.0), (small, 200.0), (both, 50.0)])
    assert found == [0.4, 0.2, 1.0, 0.25]


def test_servers_that_hardly_differ_are_equal() -> None:
    assert share_of_fastest([(None, 100.0), (None, 93.0)]) == [1.0, 1.0]


def slow_and_fast(pool: Pool, **of_slow: Any) -> tuple[Backend, Backend]:
    slow = add_up(pool, "slow", "m", capacity=8, **of_slow)
    fast = add_up(pool, "fast", "m", capacity=8)
    for backend, gap in ((slow, 0.04), (fast, 0.02)):
        for _ in range(50):
            backend.stats.inter_token.observe(gap)
    pool.learning.look()
    return slow, fast


def test_a_slower_server_counts_as_fuller() -> None:
    pool = new_pool()
    slow, fast = slow_and_fast(pool)
    for backend in (slow, fast):
        pool.lease(backend)
    assert (slow.share, slow.kept_score, fast.kept_score) == (0.5, 1 / 4, 1 / 8)


def test_a_weight_that_was_given_takes_the_place_of_what_is_learned() -> None:
    slow, _ = slow_and_fast(new_pool(), weight=0.7)
    assert slow.share == 1.0


def test_what_was_learned_counts_no_more_when_learning_is_turned_off() -> None:
    pool = new_pool()
    slow, _ = slow_and_fast(pool)
    pool.adopt(pool.rules, pool.circuit_rules, enforce_capacity=False, learns=False)
    pool.learning.look()
    assert slow.share == 1.0
    assert slow.open_for == inf


def test_plain_answers_do_not_make_streams_faster() -> None:
    stats = BackendStats()
    speed = Speed(stats)
    stats.told_tokens = 50 * 500  # of answers in one piece
    for _ in range(100):
        stats.inter_token.observe(0.01)
    stats.events = 100
    speed.look(stats, 0.0)
    assert speed.tokens_per_second == pytest.approx(100.0)


def test_a_server_that_comes_back_is_not_measured_by_what_was_before() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", "m")
    for _ in range(1000):
        backend.stats.inter_token.observe(0.01)
    backend.unlearn()
    for _ in range(100):
        backend.stats.inter_token.observe(0.1)
    pool.learning.look()
    assert backend.speed.tokens_per_second == pytest.approx(10.0)


def test_a_server_that_is_very_much_slower_still_counts() -> None:
    assert share_of_fastest([(None, 10_000.0), (None, 1.0)]) == [1.0, 0.02]


def test_a_cap_that_is_enforced_is_what_was_given_and_not_what_was_learned() -> None:
    pool = new_pool(enforce=True)
    backend = add_up(pool, "a", "m")
    pool.recognised(backend, "vllm", default_capacity=16, one_at_a_time=False)
    for _ in range(2):
        scraped(pool, backend, running=3, waiting=3)
    pool.learning.look()
    pool.drain("a")
    pool.enable("a")
    assert (backend.slots, backend.most) == (3, 16)


def test_places_that_were_opened_and_not_used_are_closed_when_requests_wait() -> None:
    places = Places()
    places.assume(10)
    assert places.may_try(0.0, 9)
    assert places.open_for == 11
    places.saw(10.0, 3.0)
    assert places.open_for == 10


def test_no_more_is_tried_than_waits() -> None:
    places = Places()
    places.assume(4)
    for _ in range(4):
        places.may_try(0.0, 100)
        places.saw_running(places.open_for)
    before = places.runs
    places.may_try(0.0, 2)
    assert places.open_for == before + 2
