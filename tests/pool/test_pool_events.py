"""Events and counts: bounded, in order, and readable."""

from __future__ import annotations

import logging

import pytest
from pool_kit import add_up, new_pool, refuse

from mvllm_router.pool.events import KEPT, Events
from mvllm_router.pool.stats import BETWEEN_EVENTS, BackendStats, RouterStats


def test_only_the_newest_are_kept() -> None:
    events = Events(kept=3)
    for number in range(10):
        events.add("up", "a", f"message {number}")
    assert [event.message for event in events.last(99)] == [
        "message 7",
        "message 8",
        "message 9",
    ]
    assert [event.number for event in events.last(99)] == [8, 9, 10]


def test_they_are_bounded_by_themselves() -> None:
    events = Events()
    for _ in range(3 * KEPT):
        events.add("up", "a", "again")
    assert len(events.last(10 * KEPT)) == KEPT


def test_those_behind_a_number_can_be_had_as_long_as_they_are_kept() -> None:
    events = Events(kept=3)
    assert events.after(0) == []
    for message in "abcde":
        events.add("up", "s0", message)
    shown = {
        number: [event.message for event in events.after(number)] for number in (0, 3, 4, 5, 9)
    }
    assert shown == {0: ["c", "d", "e"], 3: ["d", "e"], 4: ["e"], 5: [], 9: []}


def test_who_listens_is_called_after_each_event() -> None:
    events = Events()
    heard: list[int] = []
    events.listeners.append(lambda: heard.append(events.newest))
    for message in "ab":
        events.add("up", "s0", message)
    assert heard == [1, 2]


@pytest.mark.parametrize(
    ("count", "expected"), [(0, []), (1, ["c"]), (2, ["b", "c"]), (9, ["a", "b", "c"])]
)
def test_the_last_ones_come_oldest_first(count: int, expected: list[str]) -> None:
    events = Events()
    for message in "abc":
        events.add("up", "s0", message)
    assert [event.message for event in events.last(count)] == expected


def test_an_event_is_a_document() -> None:
    events = Events()
    events.add("down", "a", "down: connection refused")
    document = events.last(1)[0].document()
    at = document.pop("at")
    assert isinstance(at, float)
    assert document == {
        "number": 1,
        "kind": "down",
        "backend": "a",
        "message": "down: connection refused",
    }


def test_each_event_is_logged_with_its_server_and_level(caplog: pytest.LogCaptureFixture) -> None:
    events = Events()
    with caplog.at_level(logging.INFO, "mvllm_router.pool"):
        events.add("down", "a", "down: status 500", logging.WARNING)
        events.add("reload", "", "configuration reloaded")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "a: down: status 500"),
        ("INFO", "configuration reloaded"),
    ]


def test_a_server_that_goes_down_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    pool = new_pool()
    with caplog.at_level(logging.INFO, "mvllm_router.pool"):
        backend = add_up(pool, "a")
        refuse(pool, backend)
    assert [(record.levelname, record.getMessage()) for record in caplog.records][-2:] == [
        ("INFO", "a: up: health check passed"),
        ("WARNING", "a: down: connection refused"),
    ]


def test_the_router_counts_by_route_and_status() -> None:
    stats = RouterStats()
    stats.finished("/v1/completions", 200, 0.5)
    stats.finished("/v1/completions", 200, 1.5)
    stats.finished("/v1/completions", 503, 0.1)
    stats.finished("other", 404, 0.1)
    assert stats.requests == {
        ("/v1/completions", 200): 2,
        ("/v1/completions", 503): 1,
        ("other", 404): 1,
    }
    assert stats.duration["/v1/completions"].count == 3
    assert stats.duration["/v1/completions"].total == pytest.approx(2.1)
    assert stats.duration["other"].count == 1


def test_a_new_server_has_counted_nothing() -> None:
    stats = BackendStats()
    assert not stats.requests
    assert not stats.failures
    assert stats.ttft.count == stats.duration.count == stats.inter_token.count == 0
    assert stats.inter_token.bounds == BETWEEN_EVENTS
    assert list(BETWEEN_EVENTS) == sorted(set(BETWEEN_EVENTS))
