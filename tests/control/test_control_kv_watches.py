"""Which servers' caches are followed, for how long, and what of it is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
from control_kit import tasks_of
from kv_kit import SIZE, Publisher, stored
from support import StartRouter, StartSim, reload_with, until

from mvllm_router.config import ServerSpec
from mvllm_router.control import kv_watches
from mvllm_router.policies.kv_events import KvEvents
from mvllm_router.server import Router
from mvllm_router.sim.engine import SimEngine

CHAT = "/v1/chat/completions"
FOLLOWED = "its KV events are followed"
BODY = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Tell me of the sea. " * 60}],
    "max_tokens": 1,
}


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    async with Publisher() as publisher:
        yield publisher


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LOOK", "_AGAIN", "_SILENT"):
        monkeypatch.setattr(kv_watches, name, 0.02)


def known(router: Router) -> int:
    policy = router.dispatch.policies.made("kv_events")
    assert isinstance(policy, KvEvents)
    return len(policy.index)


def told(router: Router, name: str) -> list[str]:
    """Return what was told of a server's cache."""
    events = router.pool.events.after(0)
    return [one.message for one in events if (one.kind, one.backend) == ("cache", name)]


async def tokens_of(http: aiohttp.ClientSession, engine: SimEngine) -> list[int]:
    async with http.post(f"{engine.url}/tokenize", json=BODY) as answer:
        return list((await answer.json())["tokens"])


async def ask(http: aiohttp.ClientSession, router: Router) -> tuple[str, str]:
    async with http.post(router.url + CHAT, json=BODY) as answer:
        assert answer.status == 200
        return answer.headers["x-router-backend"], answer.headers["x-router-reason"]


async def cache_it(
    publisher: Publisher, http: aiohttp.ClientSession, engine: SimEngine, *, first: int = 1
) -> int:
    """Say that the prompt is in the cache; return how many blocks of it."""
    tokens = await tokens_of(http, engine)
    count = len(tokens) // SIZE
    await publisher.publish(stored(range(first, first + count), tokens[: count * SIZE]))
    return count


async def test_a_prompt_goes_to_the_server_that_publishes_that_it_has_it(
    publisher: Publisher,
    start_sim: StartSim,
    start_router: StartRouter,
    http: aiohttp.ClientSession,
) -> None:
    others = [await start_sim() for _ in range(3)]
    has_it = await start_sim(kv_events=publisher.sources)
    count = await cache_it(publisher, http, has_it)  # before the router is there
    router = await start_router(*others, has_it, policy="kv_events")
    await until(lambda: known(router) == count)
    for _ in range(5):
        assert await ask(http, router) == ("s3", "it has most of the prompt in its cache")
    await until(lambda: told(router, "s3") == [FOLLOWED])
    silent = "it publishes no KV events (--kv-events-config): it gets requests by its load"
    await until(lambda: told(router, "s0") == [silent])


async def test_a_restart_empties_what_is_known_until_it_says_more(
    publisher: Publisher,
    start_sim: StartSim,
    start_router: StartRouter,
    http: aiohttp.ClientSession,
) -> None:
    engine = await start_sim(kv_events=publisher.sources)
    router = await start_router(engine, policy="kv_events")
    count = await cache_it(publisher, http, engine)
    await until(lambda: known(router) == count)
    await until(lambda: told(router, "s0") == [FOLLOWED])
    await publisher.restart()
    await until(lambda: known(router) == 0)
    await cache_it(publisher, http, engine, first=100)
    await until(lambda: known(router) == count)
    await until(lambda: told(router, "s0")[-1] == FOLLOWED)
    assert told(router, "s0")[1] == "its KV events are lost: the connection broke"


async def test_what_a_server_has_cached_before_is_unknown_where_nobody_can_be_asked(
    start_sim: StartSim, start_router: StartRouter
) -> None:
    async with Publisher(replay=False) as publisher:
        engine = await start_sim(kv_events=publisher.sources)
        router = await start_router(engine, policy="kv_events")
        await until(lambda: bool(told(router, "s0")))
        assert told(router, "s0") == [
            "its KV events are followed; what it has cached before is not known: it has no "
            "replay_endpoint"
        ]


async def test_what_cannot_be_followed_is_told_once(
    start_sim: StartSim, start_router: StartRouter
) -> None:
    engine = await start_sim(
        kv_events='{"0": {"enable_kv_cache_events": true, "publisher": "zmq", "endpoint": "ipc://x"}}'
    )
    router = await start_router(engine, policy="kv_events")
    await until(lambda: [one.path for one in engine.requests].count("/kv_event_sources") > 2)
    assert told(router, "s0") == [
        "its KV events cannot be followed: it publishes on an address that is none of the form "
        "tcp://host:port"
    ]


async def test_only_vllm_is_asked_and_only_for_this_policy(
    start_sim: StartSim, start_router: StartRouter
) -> None:
    vllm, other = await start_sim(), await start_sim("llama.cpp")
    router = await start_router(vllm, other)
    assert tasks_of("KV events s0") == []
    assert router.relay.tokens is None
    settings = replace(router.config.settings, policy="kv_events")
    await reload_with(router, replace(router.config, settings=settings))
    await until(lambda: any(one.path == "/kv_event_sources" for one in vllm.requests))
    assert tasks_of("KV events s0", "KV events s1") == ["KV events s0", "KV events s1"]
    assert router.relay.tokens is not None
    assert not any(one.path == "/kv_event_sources" for one in other.requests)


async def test_following_ends_with_the_server_and_with_the_policy(
    publisher: Publisher,
    start_sim: StartSim,
    start_router: StartRouter,
    http: aiohttp.ClientSession,
) -> None:
    stays, goes = await start_sim(), await start_sim(kv_events=publisher.sources)
    router = await start_router(stays, goes, policy="kv_events")
    count = await cache_it(publisher, http, goes)
    await until(lambda: known(router) == count)
    config = router.config
    await reload_with(router, replace(config, servers=config.servers[:1]))
    assert known(router) == 0
    assert tasks_of("KV events s0", "KV events s1") == ["KV events s0"]
    await reload_with(router, config)
    await until(lambda: known(router) == count)
    by_load = replace(config.settings, policy="least_load")
    await reload_with(router, replace(config, settings=by_load))
    assert tasks_of("KV events s0", "KV events s1") == []
    assert router.relay.tokens is None
    assert (await ask(http, router))[1] == "the lowest score"


async def test_each_rank_is_followed_and_one_that_is_lost_is_followed_again(
    publisher: Publisher, start_sim: StartSim, start_router: StartRouter
) -> None:
    tokens = list(range(4 * SIZE))
    async with Publisher() as second:
        engine = await start_sim(kv_events=json.dumps({"0": publisher.told, "1": second.told}))
        await publisher.publish(stored([1], tokens[:SIZE]), lost=True)
        await second.publish(stored([1, 2], tokens[SIZE : 3 * SIZE]), lost=True)
        router = await start_router(engine, policy="kv_events")
        await until(lambda: known(router) == 3)
        await second.restart()
        await until(lambda: known(router) == 1)


async def test_a_server_of_the_file_is_followed_at_the_host_of_its_url(
    publisher: Publisher,
    start_sim: StartSim,
    start_router: StartRouter,
    http: aiohttp.ClientSession,
) -> None:
    engine = await start_sim(kv_events=publisher.sources)
    spec = ServerSpec(url=engine.url.replace("127.0.0.1", "localhost"), name="there")
    router = await start_router(spec, policy="kv_events")
    count = await cache_it(publisher, http, engine)
    await until(lambda: known(router) == count)
