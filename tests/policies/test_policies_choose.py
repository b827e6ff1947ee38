"""Which server gets the next request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from pool_kit import Clock, add_up, new_pool, scraped

from mvllm_router.policies import Policy, Supposed
from mvllm_router.policies.least_load import LeastLoad
from mvllm_router.policies.random_choice import RandomChoice
from mvllm_router.policies.round_robin import RoundRobin
from mvllm_router.pool import Lease, Pool

WISH = Supposed("m")


def place(pool: Pool, policy: Policy, count: int) -> tuple[Counter[str], list[Lease]]:
    """Send `count` requests that all stay; return how many each server got."""
    leases = []
    for _ in range(count):
        backend = policy.choose(pool.candidates("m"), WISH, pool.monotonic())[0]
        leases.append(pool.lease(backend))
    return Counter(lease.backend.name for lease in leases), leases


CAPACITIES = (3, 5, 10, 20)


@pytest.mark.parametrize("count", [10, 50, 200])
def test_requests_between_two_scrapes_spread_by_capacity(count: int) -> None:
    pool = new_pool()
    for capacity in CAPACITIES:
        scraped(pool, add_up(pool, f"c{capacity}", "m", capacity=capacity), running=0)
    got, leases = place(pool, LeastLoad(), count)
    for capacity in CAPACITIES:
        share = count * capacity / sum(CAPACITIES)
        assert abs(got[f"c{capacity}"] - share) < 1.5, f"{got} is not by capacity"
    for lease in leases:
        lease.release()
    assert all(backend.score(pool.monotonic()) == 0 for backend in pool.backends.values())


def test_as_many_requests_as_there_are_places_fill_each_server_exactly() -> None:
    pool = new_pool()
    for capacity in CAPACITIES:
        add_up(pool, f"c{capacity}", "m", capacity=capacity)
    got, _ = place(pool, LeastLoad(), sum(CAPACITIES))
    assert got == {f"c{capacity}": capacity for capacity in CAPACITIES}


def test_a_scrape_that_has_seen_some_of_them_does_not_count_them_twice() -> None:
    pool = new_pool()
    backends = [add_up(pool, f"c{capacity}", "m", capacity=capacity) for capacity in CAPACITIES]
    place(pool, LeastLoad(), 20)
    for backend in backends:
        scraped(pool, backend, running=backend.in_flight // 2)  # figures that lag
    place(pool, LeastLoad(), 30)
    for backend in backends:
        assert abs(backend.in_flight - 50 * backend.capacity / sum(CAPACITIES)) < 1.5


def test_weight_is_a_share() -> None:
    pool = new_pool()
    add_up(pool, "light", "m", capacity=8)
    add_up(pool, "heavy", "m", capacity=8, weight=3.0)
    got, _ = place(pool, LeastLoad(), 40)
    assert got == {"light": 10, "heavy": 30}


def test_what_others_have_put_on_a_server_counts() -> None:
    pool = new_pool()
    shared = add_up(pool, "shared", "m", capacity=10)
    add_up(pool, "own", "m", capacity=10)
    scraped(pool, shared, running=6, waiting=0)
    got, _ = place(pool, LeastLoad(), 6)
    assert got == {"own": 6}


def test_figures_that_are_too_old_are_not_believed() -> None:
    clock = Clock()
    pool = new_pool(clock)
    shared = add_up(pool, "shared", "m", capacity=10)
    add_up(pool, "own", "m", capacity=10)
    scraped(pool, shared, running=10)
    clock.advance(3.5)
    got, _ = place(pool, LeastLoad(), 10)
    assert got == {"shared": 5, "own": 5}


def test_an_idle_server_beats_one_at_49_percent() -> None:
    pool = new_pool()
    big = add_up(pool, "big", "m", capacity=100)
    idle = add_up(pool, "idle", "m", capacity=1)
    scraped(pool, big, running=49)
    for _ in range(20):
        assert LeastLoad().choose([big, idle], WISH, pool.monotonic())[0] is idle
        assert LeastLoad().choose([idle, big], WISH, pool.monotonic())[0] is idle


def test_servers_under_half_are_preferred_to_the_others() -> None:
    pool = new_pool()
    backends = [add_up(pool, f"s{number}", "m", capacity=100) for number in range(4)]
    for backend, running in zip(backends, (80, 51, 50, 49), strict=True):
        scraped(pool, backend, running=running)
    assert LeastLoad().choose(backends, WISH, pool.monotonic())[0] is backends[3]


def test_a_queue_costs_half_a_request_each() -> None:
    pool = new_pool()
    queued = add_up(pool, "queued", "m", capacity=10)
    running = add_up(pool, "running", "m", capacity=10)
    scraped(pool, queued, running=2, waiting=3)  # 3.5 of 10
    scraped(pool, running, running=4)
    assert LeastLoad().choose([queued, running], WISH, pool.monotonic())[0] is queued
    scraped(pool, running, running=3)
    assert LeastLoad().choose([queued, running], WISH, pool.monotonic())[0] is running


@pytest.mark.parametrize(
    ("share", "chosen"), [(0.0, "s0"), (0.34, "s1"), (0.67, "s2"), (0.999999, "s2")]
)
def test_ties_are_broken_by_the_draw(share: float, chosen: str) -> None:
    pool = new_pool()
    backends = [add_up(pool, f"s{number}", "m", capacity=4) for number in range(3)]
    busy = add_up(pool, "busy", "m", capacity=4)
    pool.lease(busy)
    policy = LeastLoad(lambda: share)
    assert policy.choose([busy, *backends], WISH, pool.monotonic())[0].name == chosen


@pytest.mark.parametrize("count", [2, 3, 4])
def test_ties_reach_every_server_by_default(count: int) -> None:
    pool = new_pool()
    for number in range(count):
        add_up(pool, f"s{number}", "m", capacity=4)
    policy = LeastLoad()
    chosen = {
        policy.choose(pool.candidates("m"), WISH, pool.monotonic())[0].name for _ in range(500)
    }
    assert chosen == {f"s{number}" for number in range(count)}


@pytest.mark.parametrize("count", [40, 500])
def test_of_many_servers_the_least_loaded_is_chosen_and_ties_reach_all(count: int) -> None:
    pool = new_pool()
    backends = [add_up(pool, f"s{number}", "m", capacity=4) for number in range(count)]
    policy = LeastLoad()
    for _ in range(4):
        got, _ = place(pool, policy, count)  # each round, everybody gets one
        assert len(got) == count
    for backend in backends[7], backends[23]:
        idle = pool.lease(backend)
        for _ in range(4):
            pool.lease(backend)
        idle.release()
    got, _ = place(pool, policy, count - 2)
    assert not got.keys() & {"s7", "s23"}


def test_a_kept_score_follows_all_that_it_depends_on() -> None:
    clock = Clock()
    pool = new_pool(clock)
    backend = add_up(pool, "a", "m", capacity=4)

    def is_true() -> bool:
        pool.candidates("m")
        return backend.kept_score == backend.score(clock())

    lease = pool.lease(backend)
    assert is_true()
    scraped(pool, backend, running=3, waiting=2)
    assert is_true()
    before = backend.kept_score
    pool.told_capacity(backend, 8)
    assert is_true()
    pool.update(replace(backend.spec, weight=3.0))
    assert is_true()
    clock.advance(3600)  # the scrape is too old
    assert is_true()
    assert 0 < backend.kept_score < before
    lease.release()
    assert is_true()
    assert backend.kept_score == 0


def test_round_robin_takes_turns_whatever_the_load() -> None:
    pool = new_pool()
    scraped(pool, add_up(pool, "a", "m", capacity=1), running=50)
    add_up(pool, "b", "m", capacity=100)
    add_up(pool, "c", "m", capacity=10)
    policy = RoundRobin()
    turns = [policy.choose(pool.candidates("m"), WISH, 0.0)[0].name for _ in range(7)]
    assert turns == ["a", "b", "c", "a", "b", "c", "a"]


def test_round_robin_goes_on_when_fewer_can_be_asked() -> None:
    pool = new_pool()
    backends = [add_up(pool, name, "m") for name in "abc"]
    policy = RoundRobin()
    for _ in range(2):
        policy.choose(backends, WISH, 0.0)
    assert policy.choose(backends[:1], WISH, 0.0)[0].name == "a"
    assert policy.choose(backends, WISH, 0.0)[0].name == "a"


def test_random_draws_by_capacity() -> None:
    pool = new_pool()
    small = add_up(pool, "small", "m", capacity=1)
    big = add_up(pool, "big", "m", capacity=9, weight=2.0)
    policy = RandomChoice()
    got = Counter(policy.choose([small, big], WISH, 0.0)[0].name for _ in range(1900))
    assert set(got) == {"small", "big"}
    assert got["big"] > 5 * got["small"]


@pytest.mark.parametrize("make", [LeastLoad, RoundRobin, RandomChoice])
def test_one_candidate_is_the_choice(make: Callable[[], Policy]) -> None:
    pool = new_pool()
    only = add_up(pool, "only", "m", capacity=1)
    pool.lease(only)
    assert make().choose([only], WISH, pool.monotonic())[0] is only
