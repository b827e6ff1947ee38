"""The smaller policies: two drawn, turns by capacity, the first token expected soonest."""

from __future__ import annotations

from collections import Counter

import pytest
from pool_kit import Clock, add_up, new_pool

from mvllm_router.policies import POLICIES, Supposed, make
from mvllm_router.policies.latency import Latency
from mvllm_router.policies.power_of_two import PowerOfTwo
from mvllm_router.policies.weighted import Weighted
from mvllm_router.pool import Backend, Pool

WISH = Supposed("m")


def answer(pool: Pool, backend: Backend, clock: Clock, first: float, whole: float) -> None:
    """Let a server answer a stream, alone."""
    lease = pool.lease(backend)
    clock.advance(first)
    lease.begins()
    clock.advance(whole - first)
    lease.release()


def test_of_two_drawn_the_less_loaded_is_taken() -> None:
    pool = new_pool()
    one, other = add_up(pool, "one", "m", capacity=4), add_up(pool, "other", "m", capacity=4)
    pool.lease(one)
    for share in (0.0, 0.6):
        assert PowerOfTwo(lambda share=share: share).choose([one, other], WISH, 0.0)[0] is other  # type: ignore[misc]


def test_two_different_ones_are_drawn_whatever_the_draw() -> None:
    pool = new_pool()
    backends = [add_up(pool, f"s{number}", "m", capacity=4) for number in range(3)]
    pool.lease(backends[0])
    pool.lease(backends[1])
    for first in (0.0, 0.34, 0.67, 0.999999):
        for second in (0.0, 0.5, 0.999999):
            draws = iter((first, second))
            chosen = PowerOfTwo(lambda draws=draws: next(draws)).choose(backends, WISH, 0.0)[0]  # type: ignore[misc]
            drawn = {int(first * 3), (int(first * 3) + 1 + int(second * 2)) % 3}
            assert len(drawn) == 2
            assert chosen in [backends[number] for number in drawn]
            assert chosen is backends[2] or 2 not in drawn


def test_turns_are_as_many_as_the_capacity_says_and_evenly_spread() -> None:
    pool = new_pool()
    small, big = add_up(pool, "small", "m", capacity=1), add_up(pool, "big", "m", capacity=3)
    policy = Weighted()
    turns = [policy.choose([small, big], WISH, 0.0)[0].name for _ in range(40)]
    for begin in range(0, 40, 4):
        assert Counter(turns[begin : begin + 4]) == {"small": 1, "big": 3}


def test_a_server_that_was_away_does_not_get_all_that_it_missed() -> None:
    pool = new_pool()
    one, other = add_up(pool, "one", "m", capacity=4), add_up(pool, "other", "m", capacity=4)
    policy = Weighted()
    for _ in range(100):
        policy.choose([one], WISH, 0.0)
    got = Counter(policy.choose([one, other], WISH, 0.0)[0].name for _ in range(20))
    assert abs(got["one"] - got["other"]) <= 1


def test_a_server_that_is_gone_is_forgotten() -> None:
    pool = new_pool()
    one = add_up(pool, "one", "m", capacity=4)
    policy = Weighted()
    policy.choose([one], WISH, 0.0)
    policy.forget(one)
    assert not policy._next


def test_the_server_that_began_sooner_lately_is_chosen() -> None:
    clock = Clock()
    pool = new_pool(clock)
    slow, quick = add_up(pool, "slow", "m", capacity=4), add_up(pool, "quick", "m", capacity=4)
    for _ in range(3):
        answer(pool, slow, clock, 0.4, 1.0)
        answer(pool, quick, clock, 0.1, 1.0)
    assert Latency().choose([slow, quick], WISH, clock())[0] is quick
    assert Latency().would_choose([slow, quick], WISH, clock())[0] is quick  # type: ignore[index]


def test_where_a_request_would_have_to_wait_the_time_until_others_have_ended_counts() -> None:
    clock = Clock()
    pool = new_pool(clock)
    slow, quick = add_up(pool, "slow", "m", capacity=2), add_up(pool, "quick", "m", capacity=2)
    for _ in range(20):
        answer(pool, slow, clock, 0.4, 2.0)
        answer(pool, quick, clock, 0.1, 2.0)
    pool.lease(quick)
    assert Latency().choose([slow, quick], WISH, clock())[0] is quick
    pool.lease(quick)
    assert Latency().choose([slow, quick], WISH, clock())[0] is slow


def test_a_server_that_has_not_shown_anything_yet_gets_one_and_not_all() -> None:
    clock = Clock()
    pool = new_pool(clock)
    known, new = add_up(pool, "known", "m", capacity=8), add_up(pool, "new", "m", capacity=8)
    answer(pool, known, clock, 0.1, 1.0)
    chosen = Counter(
        pool.lease(Latency().choose([known, new], WISH, clock())[0]).backend.name for _ in range(6)
    )
    assert chosen == {"new": 1, "known": 5}


def test_a_server_that_was_slow_long_ago_is_tried_again() -> None:
    clock = Clock()
    pool = new_pool(clock)
    slow, quick = add_up(pool, "slow", "m", capacity=4), add_up(pool, "quick", "m", capacity=4)
    answer(pool, slow, clock, 0.4, 1.0)
    for _ in range(120):
        answer(pool, quick, clock, 0.1, 1.0)
    assert Latency().choose([slow, quick], WISH, clock())[0] is slow


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("count", [1, 2, 5, 65, 200])
def test_no_policy_returns_anything_but_a_candidate(name: str, count: int) -> None:
    pool = new_pool()
    backends = [add_up(pool, f"s{number}", "m", capacity=4) for number in range(count + 3)]
    policy, allowed = make(name), backends[3:]
    body = b'{"user":"u","messages":"%b"}' % (b"word " * 500)
    for number in range(300):
        # What it has seen of those that are left out must not lead it there.
        policy.choose(backends, Supposed("m", body), float(number))
        backend, why = policy.choose(allowed, Supposed("m", body), float(number))
        assert backend in allowed
        assert why
        would = policy.would_choose(allowed, Supposed("m", body), float(number))
        assert would is None or would[0] in allowed
        if number % 3:
            pool.lease(backend)


@pytest.mark.parametrize("name", POLICIES)
def test_equal_servers_get_about_the_same(name: str) -> None:
    pool = new_pool()
    backends = [add_up(pool, f"s{number}", "m", capacity=100) for number in range(4)]
    policy = make(name)
    got = Counter(
        pool.lease(policy.choose(backends, Supposed("m"), 0.0)[0]).backend.name for _ in range(400)
    )
    assert all(60 <= count <= 140 for count in got.values()), got
    assert len(got) == 4


@pytest.mark.parametrize("name", POLICIES)
def test_each_policy_says_what_it_goes_by(name: str) -> None:
    assert make(name).why
