"""The buckets that limits per minute are made of, and how long a refused client is to wait."""

from __future__ import annotations

import random

import pytest
from auth_kit import key

from mvllm_router.auth.limits import Bucket, Limits


def test_a_full_bucket_gives_a_minutes_worth_at_once_and_no_more() -> None:
    bucket = Bucket(60, 0.0)
    for _ in range(60):
        assert bucket.wait(0.0) == 0
        bucket.take(1, 0.0)
    assert bucket.wait(0.0) == pytest.approx(1.0)


def test_it_fills_evenly_and_never_above_a_minutes_worth() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(60, 0.0)
    assert bucket.level(0.5) == pytest.approx(0.5)
    assert bucket.wait(0.5) == pytest.approx(0.5)
    assert bucket.wait(1.0) == 0
    assert bucket.level(1e9) == 60


def test_a_debt_has_to_be_paid_off_first() -> None:
    bucket = Bucket(600, 0.0)  # ten per second
    bucket.take(1600, 0.0)
    assert bucket.level(0.0) == -1000
    assert bucket.wait(0.0) == pytest.approx(100.1)
    assert bucket.wait(100.0) == pytest.approx(0.1)
    assert bucket.wait(100.1) == 0


def test_looking_at_it_changes_nothing() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(60, 0.0)
    for step in range(100):
        bucket.wait(step / 100)
    assert bucket.wait(1.0) == 0


def test_another_size_keeps_what_is_in_it_as_far_as_there_is_room() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(30, 0.0)
    bucket.resize(600, 10.0)
    assert (bucket.level(10.0), bucket.level(11.0)) == (40, 50)
    bucket.resize(5, 11.0)
    assert bucket.level(11.0) == 5


@pytest.mark.parametrize("seed", range(100))
def test_who_waits_as_long_as_told_comes_in_and_no_sooner(seed: int) -> None:
    chance = random.Random(seed)
    bucket, now = Bucket(chance.choice((1, 7, 60, 333, 10**9)), 0.0), 0.0
    for _ in range(30):
        now += chance.choice((0.0, chance.random(), 1e4 * chance.random()))
        bucket.take(chance.choice((0, 1, chance.randrange(10**6))), now)
        wait = bucket.wait(now)
        assert bucket.wait(now + wait) == 0
        if wait > 0.01:
            assert bucket.wait(now + wait * 0.99) > 0


@pytest.mark.parametrize("seed", range(50))
def test_in_no_minute_more_than_two_minutes_worth_comes_in(seed: int) -> None:
    chance = random.Random(seed)
    per_minute = chance.choice((1, 5, 100))
    limits, now = Limits(key("a", requests_per_minute=per_minute), 0.0), 0.0
    admitted: list[float] = []
    for _ in range(400):
        now += chance.choice((0.0, 120.0, chance.random())) * chance.random()
        if limits.refusal(0, now) is None:
            limits.begin(now)
            admitted.append(now)
    for begun in admitted:
        # One full bucket, and what ran into it meanwhile.
        assert sum(begun <= one < begun + 60 for one in admitted) <= 2 * per_minute


@pytest.mark.parametrize(
    ("limit", "used", "reason", "wait"),
    [
        ({"max_concurrent_requests": 2}, 0, "concurrent", 1),
        ({"requests_per_minute": 2}, 0, "requests", 30),
        ({"tokens_per_minute": 60}, 90, "tokens", 31),
        ({"max_concurrent_requests": 2, "requests_per_minute": 2}, 0, "requests", 30),
        ({"requests_per_minute": 2, "tokens_per_minute": 60}, 60, "requests", 30),
        ({"requests_per_minute": 2, "tokens_per_minute": 60}, 90, "tokens", 31),
    ],
)
def test_of_several_limits_the_one_that_takes_longest_is_told(
    limit: dict[str, int], used: int, reason: str, wait: int
) -> None:
    limits = Limits(key("alice", **limit), 0.0)
    for in_flight in range(2):
        assert limits.refusal(in_flight, 0.0) is None
        limits.begin(0.0)
    limits.used(used, 0.0)
    refusal = limits.refusal(2, 0.0)
    assert refusal is not None
    assert refusal.reason == reason
    error = refusal.error("alice")
    assert (error.status, error.type, error.code) == (
        429,
        "rate_limit_error",
        "rate_limit_exceeded",
    )
    assert error.retry_after == wait
    assert "`alice`" in error.message
    assert f"Try again in {wait} s." in error.message


def test_nobody_is_told_to_come_back_at_once() -> None:
    limits = Limits(key("alice", tokens_per_minute=10**9), 0.0)
    limits.used(10**9, 0.0)
    refusal = limits.refusal(0, 0.0)
    assert refusal is not None
    assert refusal.error("alice").retry_after == 1


def test_limits_that_come_and_go_leave_the_others_as_they_are() -> None:
    limits = Limits(key("a", requests_per_minute=2), 0.0)
    limits.begin(0.0)
    limits.begin(0.0)
    limits.adopt(key("a", requests_per_minute=2, tokens_per_minute=1), 0.0)
    limits.used(1, 0.0)
    refusal = limits.refusal(0, 0.0)
    assert refusal is not None
    assert refusal.reason == "tokens"
    limits.adopt(key("a", tokens_per_minute=100), 0.0)
    refusal = limits.refusal(0, 0.0)
    assert refusal is not None
    limits.adopt(key("a", max_concurrent_requests=1), 0.0)
    assert limits.refusal(0, 0.0) is None
    limits.adopt(key("a", requests_per_minute=2), 0.0)
    assert limits.refusal(0, 0.0) is None, "a limit that is new begins full"
