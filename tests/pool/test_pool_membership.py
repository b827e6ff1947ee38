"""Servers come, change and go; leases are given back exactly once whatever happens."""

from __future__ import annotations

import random
from dataclasses import replace
from math import inf

import pytest
from pool_kit import add_up, checked, new_pool, refuse, scraped, spec

from mvllm_router.pool import (
    Backend,
    Circuit,
    CircuitRules,
    Health,
    HealthRules,
    Lease,
    Pool,
    State,
)


def test_a_lease_is_released_once_however_often_it_is_asked() -> None:
    pool = new_pool()
    backend = add_up(pool, "a")
    first, second = pool.lease(backend), pool.lease(backend)
    assert backend.in_flight == 2
    first.release()
    first.release()
    assert backend.in_flight == 1
    assert (first.released, second.released) == (True, False)
    second.release()
    assert backend.in_flight == 0


def test_each_release_is_told_once_and_after_the_count_is_down() -> None:
    pool = new_pool()
    backend = add_up(pool, "a")
    told: list[tuple[Backend, int]] = []
    pool.on_release = lambda free: told.append((free, free.in_flight))
    lease = pool.lease(backend)
    assert told == []
    lease.release()
    lease.release()
    assert told == [(backend, 0)]


def test_any_order_of_leases_and_releases_ends_at_zero() -> None:
    pool, draw = new_pool(), random.Random(5)
    backends = [add_up(pool, name) for name in "abc"]
    held: list[Lease] = []
    for _ in range(3000):
        if held and draw.random() < 0.5:
            held.pop(draw.randrange(len(held))).release()
        else:
            held.append(pool.lease(draw.choice(backends)))
        assert sum(backend.in_flight for backend in backends) == len(held)
    for lease in held:
        lease.release()
    assert [backend.in_flight for backend in backends] == [0, 0, 0]


def test_a_removed_server_leaves_the_totals_at_once_and_counts_down_what_it_has() -> None:
    pool = new_pool()
    stays, goes = add_up(pool, "a", "m"), add_up(pool, "b", "m", "only-here")
    lease = pool.lease(goes)
    assert pool.remove("b") is goes
    assert goes.removed
    assert list(pool.backends.values()) == [stays]
    assert pool.candidates("m") == [stays]
    assert pool.model_names() == ["m"]
    assert pool.events.last(1)[0].message == "removed, 1 requests still running"
    lease.release()
    lease.release()
    assert goes.in_flight == 0


def test_a_name_can_be_used_again_while_its_former_server_still_works() -> None:
    pool = new_pool()
    former = add_up(pool, "a", "m")
    lease = pool.lease(former)
    pool.remove("a")
    again = add_up(pool, "a", "m")
    assert again is not former
    lease.release()
    assert (former.in_flight, again.in_flight) == (0, 0)


def test_what_is_seen_of_a_removed_server_changes_nothing_for_the_others() -> None:
    pool = new_pool()
    goes = add_up(pool, "a", "m")
    pool.remove("a")
    heard: list[str] = []
    pool.listeners.append(lambda: heard.append("changed"))
    refuse(pool, goes)
    assert goes.health.state is State.DOWN
    assert heard == []
    assert pool.candidates("m") == []


def test_an_update_keeps_counts_health_scrape_and_models() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", "m")
    scraped(pool, backend, running=3)
    lease, scrape, health = pool.lease(backend), backend.scrape, backend.health
    backend.stats.requests[200] += 7
    changed = pool.update(replace(backend.spec, max_concurrent_requests=20, weight=2.0))
    assert changed is backend
    assert backend.capacity == 40
    assert backend.in_flight == 1
    assert backend.scrape is scrape
    assert backend.health is health
    assert backend.is_up
    assert backend.stats.requests[200] == 7
    assert pool.candidates("m") == [backend]
    lease.release()


def test_an_update_that_drops_the_files_capacity_asks_the_engines_again() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", capacity=2)
    pool.told_capacity(backend, 6)
    pool.update(replace(backend.spec, max_concurrent_requests=None))
    assert backend.capacity == 6


def test_an_engine_that_is_given_later_is_believed() -> None:
    pool = new_pool()
    backend = add_up(pool, "a")
    pool.recognised(backend, "llama.cpp", default_capacity=4, one_at_a_time=False)
    pool.told_capacity(backend, 2)
    pool.update(replace(backend.spec, engine="vllm"))
    assert backend.engine == "vllm"
    assert backend.capacity == 4, "the slots were another engine's"


def test_an_engine_that_is_given_no_longer_stays_what_it_was_until_recognised() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", engine="vllm")
    pool.update(replace(backend.spec, engine="auto"))
    assert backend.engine == "vllm", "a server that takes requests must have a dialect"


def test_each_change_is_told_to_listeners_and_silence_is_kept_without_one() -> None:
    pool = new_pool()
    heard: list[str] = []
    pool.listeners.append(lambda: heard.append("changed"))
    backend = pool.add(spec("a"))
    checked(pool, backend)
    pool.told_models(backend, {"m": {"id": "m"}})
    pool.recognised(backend, "vllm", default_capacity=16, one_at_a_time=False)
    pool.update(replace(backend.spec, weight=2.0))
    assert len(heard) == 5
    checked(pool, backend)
    pool.told_models(backend, {"m": {"id": "m"}})
    pool.recognised(backend, "vllm", default_capacity=16, one_at_a_time=False)
    assert len(heard) == 5
    pool.remove("a")
    assert len(heard) == 6


def test_each_change_is_an_event_with_its_reason() -> None:
    pool = new_pool()
    backend = pool.add(spec("a"))
    pool.recognised(backend, "vllm", default_capacity=16, one_at_a_time=False)
    pool.told_models(backend, {"m2": {}, "m1": {}})
    checked(pool, backend)
    refuse(pool, backend)
    pool.told_models(backend, None)
    pool.update(replace(backend.spec, weight=2.0))
    pool.remove("a")
    assert [(event.kind, event.backend, event.message) for event in pool.events.last(99)] == [
        ("added", "a", "added (http://a:8000)"),
        ("recognised", "a", "speaks vllm"),
        ("models", "a", "serves m1, m2"),
        ("up", "a", "up: health check passed"),
        ("down", "a", "down: connection refused"),
        ("models", "a", "serves ?"),
        ("updated", "a", "settings changed"),
        ("removed", "a", "removed"),
    ]


def test_models_with_a_new_date_but_the_same_names_are_no_event() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", "m")
    before = len(pool.events.last(99))
    pool.told_models(backend, {"m": {"id": "m", "created": 2}})
    assert len(pool.events.last(99)) == before
    assert backend.cards == {"m": {"id": "m", "created": 2}}
    assert backend.cards_at == 1_700_000_000.0


def test_one_at_a_time_leaves_room_for_one() -> None:
    pool = new_pool()
    backend = add_up(pool, "a")
    pool.recognised(backend, "llama-cpp-python", default_capacity=1, one_at_a_time=True)
    room = [backend.has_room]
    lease = pool.lease(backend)
    room.append(backend.has_room)
    lease.release()
    room.append(backend.has_room)
    assert room == [True, False, True]


def test_an_ordinary_server_always_has_room() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", capacity=1)
    for _ in range(3):
        pool.lease(backend)
        assert backend.has_room


def test_where_capacity_is_enforced_a_server_has_room_for_what_it_can_run() -> None:
    pool = new_pool(enforce=True)
    backend = add_up(pool, "a", capacity=2, weight=3.0)
    room = []
    for _ in range(2):
        room.append(backend.has_room)
        pool.lease(backend)
    assert [*room, backend.has_room] == [True, True, False], "the weight is no capacity"


def test_one_at_a_time_is_one_also_where_more_capacity_is_enforced() -> None:
    pool = new_pool(enforce=True)
    backend = add_up(pool, "a", capacity=8)
    pool.recognised(backend, "llama-cpp-python", default_capacity=1, one_at_a_time=True)
    assert backend.most == 1


@pytest.mark.parametrize("change", ["told", "update", "recognised", "adopt"])
def test_the_cap_follows_whatever_it_depends_on(change: str) -> None:
    pool = new_pool(enforce=change != "adopt")
    backend = add_up(pool, "a", capacity=None if change in ("told", "recognised") else 3)
    if change == "told":
        pool.told_capacity(backend, 5)
    elif change == "recognised":
        pool.recognised(backend, "vllm", default_capacity=5, one_at_a_time=False)
    elif change == "update":
        pool.update(replace(backend.spec, max_concurrent_requests=5))
    else:
        pool.adopt(pool.rules, pool.circuit_rules, enforce_capacity=True)
        pool.update(replace(backend.spec, max_concurrent_requests=5))
    assert backend.most == 5
    pool.adopt(pool.rules, pool.circuit_rules, enforce_capacity=False)
    assert backend.most == inf


def test_a_cap_that_shrinks_takes_no_running_request_its_place() -> None:
    pool = new_pool(enforce=True)
    backend = add_up(pool, "a", capacity=2)
    leases = [pool.lease(backend) for _ in range(2)]
    pool.update(replace(backend.spec, max_concurrent_requests=1))
    assert (backend.in_flight, backend.has_room) == (2, False)
    leases[0].release()
    assert not backend.has_room
    leases[1].release()
    assert backend.has_room


def test_the_pool_knows_whether_some_server_is_capped() -> None:
    pool = new_pool()
    backend, seen = add_up(pool, "a"), [pool.some_are_capped]
    add_up(pool, "b")
    for one in (True, False, True):
        pool.recognised(backend, "llama-cpp-python", default_capacity=1, one_at_a_time=one)
        seen.append(pool.some_are_capped)
    pool.remove("a")
    assert [*seen, pool.some_are_capped] == [False, True, False, True, False]
    pool.adopt(pool.rules, pool.circuit_rules, enforce_capacity=True)
    assert pool.some_are_capped


def test_a_pool_begins_empty_with_the_default_rules() -> None:
    pool = Pool()
    assert (pool.rules, pool.circuit_rules) == (HealthRules(), CircuitRules())
    assert pool.backends == {}
    assert pool.stats.in_flight == 0
    assert not pool.some_are_capped
    assert new_pool(window=3).rules == HealthRules(window=3)


def test_new_rules_reach_those_that_are_in_and_those_that_come() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", capacity=3)
    rules, circuit_rules = HealthRules(consecutive_failures=1), CircuitRules(threshold=1)
    pool.adopt(rules, circuit_rules, enforce_capacity=True)
    for each in (backend, pool.add(spec("b", 3))):
        assert each.health.rules is rules
        assert each.circuit.rules is circuit_rules
        assert each.most == 3


@pytest.mark.parametrize("known", [None, {}])
def test_a_backend_shows_what_matters_in_a_debugger(known: dict[str, str] | None) -> None:
    health, circuit = Health(HealthRules(), lambda: 0.0), Circuit(CircuitRules(), 0.0)
    backend = Backend(spec("a"), health, circuit, 8)
    assert repr(backend) == "<Backend a auto checking in_flight=0>"


def test_a_server_with_thousands_of_models_does_not_fill_the_log() -> None:
    pool = new_pool()
    backend = pool.add(spec("a"))
    pool.told_models(backend, {f"m{number:04}": {} for number in range(4000)})
    message = pool.events.last(1)[0].message
    assert message.startswith("serves m0000, m0001, ")
    assert message.endswith("m0019 and 3980 more")
