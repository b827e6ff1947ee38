"""The load of a server: the router's own count decides, scrapes add what others put there."""

from __future__ import annotations

import random

import pytest
from pool_kit import Clock, add_up, new_pool, scraped

from mvllm_router.pool import Load, Sample, Scrape, estimate


@pytest.mark.parametrize(
    ("running", "waiting", "score"),
    [(0, 0, 0.0), (4, 0, 0.5), (8, 0, 1.0), (8, 4, 1.25), (0, 2, 0.125)],
)
def test_a_request_that_waits_counts_half(running: float, waiting: float, score: float) -> None:
    assert Load(running, waiting, 8.0).score == score


def test_without_a_scrape_the_own_count_is_all() -> None:
    assert estimate(3, 8.0, None) == Load(3.0, 0.0, 8.0)


@pytest.mark.parametrize(
    ("running", "waiting", "own_then", "own_now", "expected"),
    [
        (5, 0, 5, 5, Load(5, 0, 8.0)),  # all of it is ours: not counted twice
        (5, 0, 2, 2, Load(5, 0, 8.0)),  # three are somebody else's
        (5, 0, 2, 6, Load(9, 0, 8.0)),  # four of ours came since
        (5, 0, 5, 0, Load(0, 0, 8.0)),  # ours have all gone since
        (0, 0, 6, 6, Load(6, 0, 8.0)),  # the server's figures lag behind: the own count holds
        (8, 4, 12, 12, Load(8, 4, 8.0)),
        (8, 4, 12, 3, Load(0, 3, 8.0)),  # never more that wait than are there
        (8, 4, 2, 2, Load(8, 4, 8.0)),
        (None, None, 2, 2, Load(2, 0, 8.0)),
        (None, 3, 0, 0, Load(0, 3, 8.0)),
        (3, None, 1, 1, Load(3, 0, 8.0)),
    ],
)
def test_a_scrape_adds_what_others_put_there(
    running: float | None, waiting: float | None, own_then: int, own_now: int, expected: Load
) -> None:
    scrape = Scrape(Sample(running=running, waiting=waiting), at=0.0, own=own_then)
    assert estimate(own_now, 8.0, scrape) == expected


def test_a_scrape_counts_for_three_intervals_and_no_longer() -> None:
    clock = Clock()
    pool = new_pool(clock)
    backend = add_up(pool, "a", capacity=10)
    pool.scraped(backend, Sample(running=5), 0, interval=2.0)
    clock.advance(5.9)
    assert backend.load(clock()).running == 5
    assert backend.score(clock()) == 0.5
    clock.advance(0.2)
    assert backend.load(clock()).running == 0
    assert backend.score(clock()) == 0.0


def test_a_scrape_remembers_when_it_was_and_what_was_ours_then() -> None:
    clock = Clock(50.0)
    pool = new_pool(clock)
    backend = add_up(pool, "a")
    sample = Sample(running=4, kv_usage=0.3)
    pool.scraped(backend, sample, 3, interval=1.0)
    assert backend.scrape is not None
    assert (backend.scrape.sample, backend.scrape.at, backend.scrape.own) == (sample, 50.0, 3)
    assert backend.scrape.others == 1


def test_the_quick_score_is_the_score_of_the_load_in_any_state() -> None:
    draw = random.Random(3)
    for _ in range(2000):
        clock = Clock()
        pool = new_pool(clock)
        backend = add_up(pool, "a", capacity=draw.randint(1, 40), weight=draw.choice([0.5, 1, 3]))
        leases = [pool.lease(backend) for _ in range(draw.randint(0, 30))]
        if draw.random() < 0.9:
            scraped(pool, backend, draw.randint(0, 30), draw.randint(0, 30))
        for lease in leases[: draw.randint(0, 30)]:
            lease.release()
        clock.advance(draw.choice([0.0, 1.0, 2.9, 3.0, 50.0]))
        assert backend.score(clock()) == pytest.approx(backend.load(clock()).score)


def test_capacity_is_the_files_then_the_engines_own_then_the_engines_default() -> None:
    pool = new_pool()
    backend = add_up(pool, "a")
    fixed = add_up(pool, "b", capacity=5)
    assert backend.capacity == 8
    for each in (backend, fixed):
        pool.recognised(each, "llama.cpp", default_capacity=4, one_at_a_time=False)
    assert (backend.capacity, fixed.capacity) == (4, 5)
    for each in (backend, fixed):
        pool.told_capacity(each, 12)
    assert (backend.capacity, fixed.capacity) == (12, 5)
    pool.told_capacity(backend, None)
    assert backend.capacity == 12, "not being told again is no news"


def test_weight_scales_capacity_wherever_it_comes_from() -> None:
    pool = new_pool()
    told, fixed = add_up(pool, "a", weight=2.0), add_up(pool, "b", capacity=10, weight=0.5)
    assert (told.capacity, fixed.capacity) == (16, 5)
    pool.told_capacity(told, 3)
    assert told.capacity == 6


def test_a_capacity_that_another_engine_told_is_forgotten() -> None:
    pool = new_pool()
    backend = add_up(pool, "a")
    pool.recognised(backend, "llama.cpp", default_capacity=4, one_at_a_time=False)
    pool.told_capacity(backend, 2)
    pool.recognised(backend, "llama.cpp", default_capacity=4, one_at_a_time=False)
    assert backend.capacity == 2
    pool.recognised(backend, "vllm", default_capacity=16, one_at_a_time=False)
    assert backend.capacity == 16
