"""The last requests: numbered, bounded, and each attempt with what came of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pool_kit import add_up, new_pool

from mvllm_router.pool.requests import KEPT, Ended, Requests

POOL = new_pool()
A, B, C = (add_up(POOL, name) for name in "abc")
WHY = "the lowest score"
ENDED = Ended(1.0, 2.0, "id", "GET", "/", None, 200, "", "", [A], [], WHY, None, None, "")


def numbers(ring: Requests, after: int, limit: int) -> list[int]:
    return [number for number, _ in ring.after(after, limit)]


def test_they_are_numbered_and_come_oldest_first() -> None:
    ring = Requests()
    assert (ring.newest, ring.after(0, 10)) == (0, [])
    for n in range(5):
        ring.add(ENDED._replace(id=str(n)))
    assert [(number, one.id) for number, one in ring.after(0, 10)] == [
        (1, "0"),
        (2, "1"),
        (3, "2"),
        (4, "3"),
        (5, "4"),
    ]
    assert numbers(ring, 3, 10) == [4, 5]
    assert numbers(ring, 1, 2) == [4, 5]
    assert numbers(ring, 5, 10) == numbers(ring, 99, 10) == numbers(ring, 0, 0) == []


def test_only_the_last_ones_are_kept() -> None:
    ring = Requests()
    for _ in range(KEPT + 10):
        ring.add(ENDED)
    assert ring.newest == KEPT + 10
    assert numbers(ring, 0, 10**9) == list(range(11, KEPT + 11))
    assert len(ring._ring) == KEPT


@pytest.mark.parametrize(
    ("tried", "failures", "why", "attempts"),
    [
        ([A], [], WHY, "a:"),
        ([A, B], ["reset"], WHY, "a:reset b:"),
        ([A, B, C], ["reset", "refused"], WHY, "a:reset b:refused c:"),
        ([A], ["busy", "busy"], WHY, "a:busy a:busy a:"),
        ([A, B], ["busy", "busy"], WHY, "a:busy a:busy b:"),
        ([], [], None, ""),
        ([A], ["reset"], None, "a:reset"),
        ([A, B], ["reset", "refused"], None, "a:reset b:refused"),
        ([A], ["busy", "busy"], None, "a:busy a:busy"),
        ([A], [], None, "a:"),  # its client left
        ([A, B], ["reset"], None, "a:reset b:"),
    ],
)
def test_each_attempt_has_its_server_and_what_came_of_it(
    tried: Sequence[object], failures: Sequence[str], why: str | None, attempts: str
) -> None:
    ended = ENDED._replace(tried=tried, failures=failures, why=why)  # type: ignore[arg-type]
    said = " ".join(f"{backend.name}:{outcome}" for backend, outcome in ended.attempts)
    assert said == attempts
