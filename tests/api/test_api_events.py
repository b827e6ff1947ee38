"""GET /router/events: what happens to the pool, told to whoever listens, and who may not listen."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from admin_kit import Api, message
from support import StartRouter, until
from wire import Client

from mvllm_router.api import events as module
from mvllm_router.api.events import MOST_READERS
from mvllm_router.config import ServerSpec
from mvllm_router.server import Router

NOBODY = ServerSpec(url="http://127.0.0.1:9", name="s0")


class Reader:
    """Reads the events of a stream, one by one."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def block(self) -> dict[str, str]:
        """Return the fields of the next block; {} for a comment or the end."""
        found: dict[str, str] = {}
        while line := (await self.response.content.readline()).decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            if name != ":":
                found[name] = value
        return found

    async def messages(self, count: int) -> list[str]:
        return [json.loads((await self.block())["data"])["message"] for _ in range(count)]


async def listen(
    http: aiohttp.ClientSession, router: Router, query: str = "", **headers: str
) -> Reader:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    response = await http.get(f"{router.url}/router/events{query}", headers=names)
    assert response.status == 200
    return Reader(response)


def add(router: Router, *messages: str) -> None:
    for text in messages:
        router.pool.events.add("test", "s0", text)


async def left(router: Router) -> None:
    """Wait until nobody reads any more."""
    await until(lambda: router.app.events.readers == 0)


async def test_an_event_comes_as_it_happens(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    reader = await listen(http, router)
    headers = reader.response.headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache", "no")
    assert headers["x-request-id"]
    add(router, "one\ntwo")
    block = await reader.block()
    (event,) = router.pool.events.last(1)
    assert block == {"id": "1", "event": "test", "data": json.dumps(event.document())}
    assert json.loads(block["data"])["message"] == "one\ntwo"
    reader.response.close()
    await left(router)


async def test_it_begins_with_the_last_fifty(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    add(router, *(str(n) for n in range(60)))
    reader = await listen(http, router)
    assert await reader.messages(50) == [str(n) for n in range(10, 60)]
    reader.response.close()


@pytest.mark.parametrize("way", ["header", "query", "both"])
async def test_a_reader_goes_on_where_it_was(
    way: str, start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    add(router, "a", "b", "c")
    query = "" if way == "header" else "?after=2"
    last = {"header": "2", "query": "", "both": "1"}[way]
    reader = await listen(http, router, query, last_event_id=last)
    assert await reader.messages(1) == ["c"]
    reader.response.close()


async def test_a_number_of_a_router_that_ran_before_begins_anew(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    add(router, "a")
    reader = await listen(http, router, last_event_id="500")
    assert await reader.messages(1) == ["a"]
    reader.response.close()


async def test_an_id_that_is_none_of_ours_begins_as_if_there_were_none(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    add(router, "a")
    reader = await listen(http, router, last_event_id="x&id=9")
    assert await reader.messages(1) == ["a"]
    reader.response.close()


async def test_silence_is_broken_by_comments(
    start_router: StartRouter, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    router = await start_router()
    reader = await listen(http, router)
    assert await reader.response.content.readline() == b":\n"
    reader.response.close()


async def test_without_a_stream_the_events_are_a_document(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    add(router, "a", "b", "c")
    document = await Api(http, router).get("/router/events?stream=0&after=1")
    assert [event["message"] for event in document["events"]] == ["b", "c"]
    assert document["newest"] == 3
    (event,) = router.pool.events.last(1)
    assert document["events"][-1] == event.document()


async def test_a_head_request_ends(start_router: StartRouter, http: aiohttp.ClientSession) -> None:
    router = await start_router()
    async with http.head(f"{router.url}/router/events") as response:
        assert response.headers["content-type"] == "text/event-stream"
    assert router.app.events.readers == 0


@pytest.mark.parametrize("query", ["?after=x", "?stream=no", "?stream=0&after=-1"])
async def test_a_query_that_is_no_number_is_a_400(
    query: str, start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    answer = await Api(http, await start_router()).ask("GET", f"/router/events{query}")
    assert answer[0] == 400
    assert "has to be a whole number" in message(answer)


async def test_they_need_a_key(start_router: StartRouter, http: aiohttp.ClientSession) -> None:
    router = await start_router(api_key="client", admin_key="admin")
    for headers in ({}, {"authorization": "Bearer wrong"}):
        async with http.get(f"{router.url}/router/events", headers=headers) as response:
            assert response.status == 401
    for key in ("client", "admin"):
        reader = await listen(http, router, authorization=f"Bearer {key}")
        reader.response.close()


async def test_only_so_many_read_at_a_time(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    readers = [await listen(http, router) for _ in range(MOST_READERS)]
    async with http.get(f"{router.url}/router/events") as response:
        assert response.status == 429
        assert "retry-after" in response.headers
    readers[0].response.close()
    await until(lambda: router.app.events.readers == MOST_READERS - 1)
    readers[0] = await listen(http, router)
    add(router, "all hear it")
    assert [await reader.messages(1) for reader in readers] == [["all hear it"]] * MOST_READERS
    for reader in readers:
        reader.response.close()
    await left(router)


async def test_a_reader_that_does_not_keep_up_is_closed(start_router: StartRouter) -> None:
    router = await start_router()
    async with Client(router.url) as client:
        client.send(b"GET /router/events HTTP/1.1\r\nhost: x\r\n\r\n")
        await client.head()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(1000):  # until the system holds no more of it, and then the router
            add(router, "x" * 100_000)
            await asyncio.sleep(0)
            if not router.app.events.readers:
                break
    assert router.app.events.readers == 0
    await until(lambda: not router.front.connections)


async def test_a_reader_that_leaves_is_forgotten(start_router: StartRouter) -> None:
    router = await start_router()
    for _ in range(3):
        async with Client(router.url) as client:
            client.send(b"GET /router/events HTTP/1.1\r\nhost: x\r\n\r\n")
            await client.head()
            assert router.app.events.readers == 1
        await left(router)


async def test_a_reader_that_speaks_http_1_0_gets_the_stream_as_well(
    start_router: StartRouter,
) -> None:
    router = await start_router()
    add(router, "a")
    async with Client(router.url) as client:
        client.send(b"GET /router/events HTTP/1.0\r\nhost: x\r\n\r\n")
        assert b"transfer-encoding" not in await client.head()
        assert await client.reader.readuntil(b"\n\n")
    await left(router)


async def test_a_stop_ends_the_streams_after_what_has_happened(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    readers = [await listen(http, router) for _ in range(3)]
    add(router, "last words")
    router.app.events.end()
    for reader in readers:
        assert await reader.messages(1) == ["last words"]
        assert await reader.response.content.read() == b""
    await left(router)


async def test_a_router_stops_at_once_although_somebody_reads(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router(NOBODY)
    reader = await listen(http, router)
    await router.stop(drain_timeout=600)
    text = (await reader.response.content.read()).decode()
    assert text.startswith("id: 1\nevent: added\n")
    assert text.endswith("\n\n")
    assert router.app.events.readers == 0
    assert not router.front.connections


async def test_a_reader_that_comes_while_the_router_stops_is_told_what_there_is_and_let_go(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    add(router, "a")
    router.app.events.end()
    reader = await listen(http, router)
    assert await reader.messages(1) == ["a"]
    assert await reader.response.content.read() == b""


async def test_each_change_is_heard_by_who_listens(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router(NOBODY)
    reader = await listen(http, router, f"?after={router.pool.events.newest}")
    await Api(http, router).patch("s0", {"weight": 2})
    heard: list[Any] = []
    while not heard or heard[-1]["event"] != "admin":
        heard.append(await reader.block())
    assert [block["event"] for block in heard] == ["updated", "admin"]
    reader.response.close()
