"""GET /router/snapshot: all that a dashboard or `router status` shows."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from admin_kit import written
from pool_kit import Clock, add_up, new_pool, open_circuit, refuse, scraped
from support import StartRouter, StartSim

from mvllm_router import __version__
from mvllm_router.api.entries import Entries, Written, server_entry
from mvllm_router.api.load_stats import load_stats_document
from mvllm_router.api.snapshot import About, snapshot_document
from mvllm_router.auth import Holder
from mvllm_router.config import KeySpec
from mvllm_router.errors import RateLimited
from mvllm_router.pool import Pool
from mvllm_router.pool.stats import NOTE_EVERY, NOTE_GROUPS
from mvllm_router.proxy.queue import Queue, Waiting

NOBODY: Waiting = Queue[None]().waiting()
ABOUT = About("http://127.0.0.1:8888", "least_load", "servers.toml", started=1_699_999_990.0)


def document(pool: Pool, *, waiting: Waiting = NOBODY, draining: bool = False) -> dict[str, Any]:
    shown = snapshot_document(pool, ABOUT, written(Entries(pool)), waiting, draining)
    read: dict[str, Any] = json.loads(msgspec.json.encode(shown))
    return read


def test_it_says_what_the_router_is_and_does() -> None:
    pool = new_pool()
    pool.stats.in_flight = 3
    pool.stats.finished("chat", 200, 0.1)
    pool.stats.finished("chat", 502, 0.1)
    pool.stats.finished("chat", 404, 0.1)
    pool.stats.client_left["chat"] += 1
    read = document(pool, waiting=Waiting(2, {"": 2}, {"high": 0, "normal": 1, "low": 1}))
    about = {
        "version": __version__,
        "at": "2023-11-14T22:13:20.000+00:00",
        "uptime_seconds": 10.0,
        "address": "http://127.0.0.1:8888",
        "policy": "least_load",
        "config": "servers.toml",
        "state": "running",
        "in_flight": 3,
        "queued": 2,
        "queued_by_priority": {"high": 0, "normal": 1, "low": 1},
    }
    assert {key: read[key] for key in about} == about
    assert read["requests"] == {"total": 3, "errors": 1, "client_left": 1}


def test_it_says_what_each_key_has_had_and_nothing_secret() -> None:
    pool = new_pool()
    alice = Holder(KeySpec("alice", b"digest", requests_per_minute=2), pool.monotonic)
    for _ in range(2):
        alice.admit("m")
    for _ in range(3):
        with pytest.raises(RateLimited):
            alice.admit("m")
    alice.release()
    alice.used(5, 7)
    shown = snapshot_document(
        pool, ABOUT, Written([], {}), Waiting(1, {"alice": 1}, {}), False, [alice]
    )
    assert shown["keys"] == [
        {
            "name": "alice",
            "requests": 2,
            "in_flight": 1,
            "queued": 1,
            "refused": 3,
            "prompt_tokens": 5,
            "completion_tokens": 7,
        }
    ]
    assert "digest" not in str(shown)
    assert document(pool)["keys"] == []


def test_it_says_that_the_router_is_stopping() -> None:
    assert document(new_pool(), draining=True)["state"] == "draining"


def test_servers_have_all_of_load_stats_and_their_counts() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", "tiny", capacity=4, tags=("rack-2",), weight=2.0)
    backend.stats.requests[200] += 2
    backend.stats.failures["reset"] += 1
    backend.stats.retries["reset"] += 1
    backend.stats.prompt_tokens, backend.stats.completion_tokens = 5, 7
    for seconds in (0.2, 0.2, 0.2):
        backend.stats.ttft.observe(seconds)
    scraped(pool, backend, 1)
    (server,) = document(pool)["servers"]
    more = {
        "state": "up",
        "reason": "health check passed",
        "weight": 2.0,
        "tags": ["rack-2"],
        "requests": 2,
        "errors": 1,
        "retries": 1,
        "prompt_tokens": 5,
        "completion_tokens": 7,
    }
    assert {key: server[key] for key in more} == more
    assert 0.1 < server["ttft_seconds"]["p50"] <= 0.25
    assert server["inter_token_seconds"] == {"p50": None, "p99": None}
    assert document(pool)["ttft_seconds"] == server["ttft_seconds"]
    (stats,) = json.loads(json.dumps(load_stats_document(pool)))["servers"]
    assert {key: server[key] for key in stats} == stats
    assert document(pool)["summary"] == load_stats_document(pool)["summary"]


def test_times_are_those_of_the_last_minute() -> None:
    pool = new_pool()
    old, busy = add_up(pool, "old"), add_up(pool, "busy")
    old.stats.ttft.observe(0.2)
    busy.stats.ttft.observe(100.0)
    for _ in range(13):
        old.stats.lately.note()
        busy.stats.lately.note()
    assert document(pool)["ttft_seconds"] == {"p50": None, "p99": None}
    busy.stats.ttft.observe(0.2)
    shown = document(pool)
    assert shown["servers"][0]["ttft_seconds"]["p99"] is None
    assert shown["ttft_seconds"] == shown["servers"][1]["ttft_seconds"]
    assert 0.1 < shown["ttft_seconds"]["p99"] <= 0.25


def test_it_says_for_how_long_a_server_is_in_its_state() -> None:
    clock = Clock()
    pool = new_pool(clock)
    backend = add_up(pool, "a")
    now = []

    def seconds() -> tuple[str, float]:
        (server,) = document(pool)["servers"]
        return server["state"], server["state_seconds"]

    clock.advance(5)
    now.append(seconds())
    pool.drain("a")
    clock.advance(2)
    now.append(seconds())
    pool.enable("a")
    clock.advance(3)
    now.append(seconds())
    pool.is_busy(backend, 4.0)
    clock.advance(1)
    now.append(seconds())
    clock.advance(10)
    now.append(seconds())
    open_circuit(pool, backend)
    clock.advance(0.5)
    now.append(seconds())
    refuse(pool, backend)
    clock.advance(9)
    now.append(seconds())
    assert now == [
        ("up", 5),
        ("drain", 2),
        ("up", 3),
        ("resting", 1),
        ("up", 7),
        ("open", 0.5),
        ("down", 9),
    ]


def test_it_says_how_old_the_figures_of_a_server_are() -> None:
    clock = Clock()
    pool = new_pool(clock)
    backend = add_up(pool, "a")
    assert document(pool)["servers"][0]["sample_age_seconds"] is None
    scraped(pool, backend, 1)
    clock.advance(2)
    assert document(pool)["servers"][0]["sample_age_seconds"] == 2


async def test_it_says_which_version_an_engine_has_that_tells_it(
    start_router: StartRouter, start_sim: StartSim
) -> None:
    engines = [await start_sim(dialect) for dialect in ("vllm", "llama.cpp", "mlx")]
    router = await start_router(*engines)
    versions = [server["engine_version"] for server in document(router.pool)["servers"]]
    assert versions[0].startswith("0.")
    assert versions[1].startswith("b")
    assert versions[2] is None


async def test_a_router_looks_back_from_time_to_time(start_router: StartRouter) -> None:
    router = await start_router("http://127.0.0.1:9")
    (backend,) = router.pool.backends.values()
    before = backend.stats.lately["ttft"]
    backend.stats.ttft.observe(0.2)
    for _ in range(13 * NOTE_GROUPS):
        assert await router._note_counts() == NOTE_EVERY / NOTE_GROUPS
    assert before.quantiles() == {"p50": None, "p99": None}


def test_counts_of_one_server_do_not_show_up_at_another() -> None:
    pool = new_pool()
    add_up(pool, "a")
    add_up(pool, "b").stats.requests[200] += 1
    assert [(s["name"], s["requests"]) for s in document(pool)["servers"]] == [("a", 0), ("b", 1)]


def test_the_last_events_are_there_oldest_first_and_bounded() -> None:
    pool = new_pool()
    refuse(pool, add_up(pool, "a"))
    events = document(pool)["events"]
    assert events[-1]["kind"] == "down"
    assert events[-1]["message"] == "down: connection refused"
    for number in range(200):
        pool.events.add("test", "", f"event {number}")
    events = document(pool)["events"]
    assert [event["message"] for event in events] == [f"event {n}" for n in range(150, 200)]


async def test_hundreds_of_servers_do_not_keep_others_from_their_turn() -> None:
    pool = new_pool()
    for number in range(200):
        add_up(pool, f"s{number}", "m")
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            pool.remove(f"s{turns}")
            await asyncio.sleep(0)

    running = asyncio.create_task(other())
    shown = await Entries(pool).write({"s0": {"memory_bytes": 5}})
    running.cancel()
    assert turns >= 3
    first, *others = [json.loads(bytes(one)) for one in shown.servers]
    assert first.pop("memory_bytes") == 5
    assert first == json.loads(json.dumps(server_entry(pool, pool.backends["s0"])))
    assert [one["name"] for one in others] == [f"s{number}" for number in range(1, 200)]
    assert shown.summary["total_servers"] == 200
