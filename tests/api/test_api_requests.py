"""GET /router/requests: what became of the last requests, also of those that got no answer."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest
from admin_kit import Api, message
from support import StartRouter, StartSim, chat, prefer, until
from wire import Client

from mvllm_router.config import KeySpec, ServerSpec, key_digest
from mvllm_router.pool.requests import KEPT, LONGEST
from mvllm_router.server import Router

CHAT = "/v1/chat/completions"
NOBODY = ServerSpec(url="http://127.0.0.1:9", name="s0", models=("tiny",))


async def send(http: aiohttp.ClientSession, router: Router, body: object, **headers: str) -> int:
    async with http.post(router.url + CHAT, json=body, headers=headers) as response:
        await response.read()
        return response.status


async def shown(http: aiohttp.ClientSession, router: Router, query: str = "") -> list[Any]:
    document = await Api(http, router).get(f"/router/requests{query}")
    requests: list[Any] = document["requests"]
    return requests


async def test_an_answered_request_is_shown_with_where_it_went_and_what_it_cost(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    router = await start_router(await start_sim())
    before = time.time()
    await send(http, router, chat(max_tokens=3), **{"x-request-id": "mine"})
    (request,) = await shown(http, router)
    assert before - 1 < request.pop("at") < time.time() + 1
    assert 0 < request.pop("duration_seconds") < 60
    assert request.pop("prompt_tokens") > 0
    assert request == {
        "number": 1,
        "id": "mine",
        "method": "POST",
        "path": CHAT,
        "model": "tiny",
        "status": 200,
        "key": None,
        "client": "127.0.0.1",
        "tried": [{"server": "s0", "outcome": ""}],
        "server": "s0",
        "attempts": 1,
        "why": "the lowest score",
        "ttft_seconds": None,
        "completion_tokens": 3,
        "stream": False,
        "error": "",
    }


async def test_a_stream_has_the_time_to_its_first_event(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    router = await start_router(await start_sim())
    await send(http, router, chat(stream=True, max_tokens=3))
    (request,) = await shown(http, router)
    assert request["stream"] is True
    assert 0 < request["ttft_seconds"] <= request["duration_seconds"]


async def test_a_request_that_moved_on_shows_the_servers_that_failed_it(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    router = await start_router(NOBODY, await start_sim(), enable_active_health_check=False)
    prefer(router, "s0")
    assert await send(http, router, chat()) == 200
    (request,) = await shown(http, router)
    assert request["tried"] == [
        {"server": "s0", "outcome": "connection refused"},
        {"server": "s1", "outcome": ""},
    ]
    assert (request["server"], request["attempts"]) == ("s1", 2)
    assert request["why"].endswith("of those left after 1 attempt")


async def test_a_request_that_no_server_answered_shows_where_it_was(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router(NOBODY, max_retries=0, enable_active_health_check=False)
    prefer(router, "s0")
    assert await send(http, router, chat()) == 502
    (request,) = await shown(http, router)
    assert request["tried"] == [{"server": "s0", "outcome": "connection refused"}]
    assert (request["status"], request["server"], request["why"]) == (502, None, "")
    assert request["model"] == "tiny"
    assert request["error"] == "Every attempt failed (1): connection refused"


async def test_refused_requests_are_shown(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    router = await start_router(await start_sim(), api_key="secret")
    key = {"authorization": "Bearer secret"}
    assert await send(http, router, chat(), authorization="Bearer wrong-secret") == 401
    assert await send(http, router, chat("huge"), **key) == 404
    assert await send(http, router, [], **key) == 400
    async with http.get(f"{router.url}/nothing", headers=key) as response:
        assert response.status == 404
    document = await Api(http, router).get("/router/requests", **key)
    requests = document["requests"]
    assert [request["status"] for request in requests] == [401, 404, 400, 404]
    assert [request["key"] for request in requests] == [None, "default", "default", "default"]
    assert [request["model"] for request in requests] == [None, "huge", None, None]
    assert all(request["error"] and not request["tried"] for request in requests)
    assert requests[3]["path"] == "/nothing"
    assert "secret" not in json.dumps(document)


async def test_who_asked_is_shown_by_the_name_of_its_key(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    router = await start_router(await start_sim())
    limited = KeySpec("alice", key_digest("a"), requests_per_minute=1)
    router.app.gate.adopt(type(router.config)((), router.config.settings, keys=(limited,)))
    key = {"authorization": "Bearer a"}
    assert [await send(http, router, chat(), **key) for _ in range(2)] == [200, 429]
    requests = (await Api(http, router).get("/router/requests", **key))["requests"]
    assert [(one["key"], one["status"], one["model"]) for one in requests] == [
        ("alice", 200, "tiny"),
        ("alice", 429, "tiny"),
    ]


@pytest.mark.parametrize("begun", [False, True], ids=["before the answer", "in mid-stream"])
async def test_a_request_whose_client_left_is_a_499(
    begun: bool, start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine)
    if not begun:
        engine.hold()
    async with Client(router.url) as client:
        client.post(json.dumps(chat(stream=True, max_tokens=10_000)).encode())
        if begun:
            await client.head()
        else:
            await engine.wait_for(lambda sim: sim.running == 1)
    await until(lambda: router.pool.requests.newest == 1)
    (request,) = await shown(http, router)
    assert (request["status"], request["error"]) == (499, "the client left")
    assert request["tried"] == [{"server": "s0", "outcome": "the client left"}]
    assert (request["server"], request["model"]) == (None, "tiny")


async def test_routes_of_the_routers_own_are_not_shown(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    for path in ("/health", "/metrics", "/router/snapshot", "/router/requests"):
        async with http.get(router.url + path) as response:
            assert response.status == 200
    assert await shown(http, router) == []


async def test_the_newest_ones_are_asked_for_by_number(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    for _ in range(5):
        await send(http, router, chat())
    document = await Api(http, router).get("/router/requests?after=3")
    assert ([one["number"] for one in document["requests"]], document["newest"]) == ([4, 5], 5)
    assert [one["number"] for one in await shown(http, router, "?limit=2")] == [4, 5]
    snapshot = await Api(http, router).get("/router/snapshot")
    assert snapshot["requests_number"] == 5


async def test_no_more_are_shown_than_are_kept_and_a_hundred_unless_more_are_asked_for(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    await send(http, router, chat())
    for _ in range(KEPT + 7):
        await send(http, router, chat())
    assert len(await shown(http, router)) == 100
    assert len(await shown(http, router, "?limit=9999")) == KEPT


@pytest.mark.parametrize(
    "query", ["limit=x", "limit=-1", "after=1.5", "after=", "limit=9" + "9" * 20]
)
async def test_a_query_that_is_no_number_is_a_400(
    query: str, start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    answer = await Api(http, await start_router()).ask("GET", f"/router/requests?{query}")
    assert answer[0] == 400
    assert "has to be a whole number" in message(answer)


async def test_a_query_without_end_is_a_400(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    query = "&".join("a=1" for _ in range(100))
    answer = await Api(http, await start_router()).ask("GET", f"/router/requests?{query}")
    assert "too long" in message(answer)


async def test_what_a_client_made_long_is_kept_short(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    path = "/v1/" + "x" * 5000
    async with http.post(router.url + path, json=chat("m" * 100_000)) as response:
        await response.read()
    (request,) = await shown(http, router)
    assert request["path"] == path[:LONGEST]
    assert request["model"] == "m" * LONGEST
    assert len(request["error"]) < 1000


async def test_tokens_of_a_stream_count_as_they_go_and_once(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine)
    backend = router.pool.backends["s0"]
    engine.hold()
    body = chat(stream=True, max_tokens=20, stream_options={"include_usage": True})
    running = asyncio.create_task(send(http, router, body))
    await engine.wait_for(lambda sim: sim.running == 1)
    engine.release()
    await running
    assert backend.stats.completion_tokens == 20
    seen = (await Api(http, router).get("/router/snapshot"))["tokens_out"]
    assert 20 <= seen <= 23  # the events that begin and end it may have come one by one
    await send(http, router, chat(max_tokens=7))
    snapshot = await Api(http, router).get("/router/snapshot")
    assert snapshot["tokens_out"] == snapshot["servers"][0]["tokens_out"] >= 27
    await Api(http, router).remove("s0")
    assert (await Api(http, router).get("/router/snapshot"))["tokens_out"] == snapshot["tokens_out"]
