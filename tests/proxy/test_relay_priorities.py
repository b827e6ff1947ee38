"""Priorities and turns in the queue, from the client's request to the order at the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from support import StartRouter, StartSim, chat, until

from mvllm_router.config import KeySpec, ServerSpec, key_digest
from mvllm_router.server import Router
from mvllm_router.sim.engine import SimEngine

CHAT = "/v1/chat/completions"


class Line:
    """Requests that wait one behind the other for the one place of a server which is held."""

    def __init__(self, http: aiohttp.ClientSession, router: Router, engine: SimEngine) -> None:
        self._http = http
        self._router = router
        self._engine = engine
        self._tasks: list[asyncio.Task[int]] = []
        engine.hold()

    async def begin(self) -> None:
        """Let one request take the place."""
        self._tasks.append(asyncio.create_task(self.ask("first", key="alice")))
        await until(lambda: len(self.received) == 1)

    @property
    def received(self) -> list[dict[str, Any]]:
        """The bodies that the server got, in that order."""
        return [json.loads(one.body) for one in self._engine.requests if one.path == CHAT]

    async def ask(self, name: str, *, key: str = "", header: str = "", **body: Any) -> int:
        headers = {"x-api-key": f"{key}-secret"} if key else {}
        if header:
            headers["x-priority"] = header
        body = chat(**{"max_tokens": 1, "user": name, **body})
        url = self._router.url + CHAT
        async with self._http.post(url, json=body, headers=headers) as answer:
            await answer.read()
            return answer.status

    async def join(self, name: str, **more: Any) -> None:
        """Let one more request wait."""
        before = self._router.dispatch.waiting
        self._tasks.append(asyncio.create_task(self.ask(name, **more)))
        await until(lambda: self._router.dispatch.waiting == before + 1)

    async def served(self) -> list[str]:
        """Let the server work; return the names of those that waited, in the order served."""
        self._engine.release()
        assert set(await asyncio.gather(*self._tasks)) == {200}
        return [body["user"] for body in self.received][1:]


def key(name: str, priority: int = 0) -> KeySpec:
    return KeySpec(name, key_digest(f"{name}-secret"), priority=priority)


@pytest.fixture
def start_line(start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession) -> Any:
    """Give a function that starts a router with these keys, whose one place is taken."""

    async def start(keys: Sequence[KeySpec] = (), **settings: Any) -> tuple[Line, Router]:
        engine = await start_sim(tokens_per_second=1000.0)
        spec = ServerSpec(url=engine.url, name="s0", max_concurrent_requests=1)
        router = await start_router(spec, max_queue=100, **settings)
        await router.live.apply(replace(router.config, keys=tuple(keys)))
        line = Line(http, router, engine)
        await line.begin()
        return line, router

    return start


async def test_one_that_is_urgent_overtakes_a_flood_that_is_not(start_line: Any) -> None:
    line, router = await start_line(priority_ageing=60)
    for number in range(8):
        await line.join(f"low {number}", priority=5)
    await line.join("plain")
    await line.join("urgent", priority=-1)
    assert router.dispatch.who_waits().by_rank == {"high": 0, "normal": 2, "low": 8}
    assert await line.served() == ["urgent", "plain", *(f"low {n}" for n in range(8))]


async def test_the_header_goes_before_the_body_and_the_body_stays_as_it_is(
    start_line: Any,
) -> None:
    line, _ = await start_line(priority_ageing=60)
    await line.join("plain")
    await line.join("late by header", header="1", priority=-5)
    await line.join("early by header", header="-1", priority=5)
    assert await line.served() == ["early by header", "plain", "late by header"]
    assert {body.get("priority") for body in line.received} == {None, -5, 5}


@pytest.mark.parametrize(
    ("headers", "body"),
    [({"x-priority": "high"}, {}), ({"x-priority": ""}, {}), ({}, {"priority": "high"})],
)
async def test_a_priority_that_is_none_is_a_400_and_asks_no_server(
    headers: dict[str, str],
    body: dict[str, Any],
    start_router: StartRouter,
    start_sim: StartSim,
    http: aiohttp.ClientSession,
) -> None:
    engine = await start_sim()
    router = await start_router(engine)
    async with http.post(router.url + CHAT, json=chat(**body), headers=headers) as answer:
        assert answer.status == 400
        error = (await answer.json())["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "priority")
    assert "priority` has to be a whole number" in error["message"]
    assert engine.started == 0


async def test_keys_take_turns_whatever_they_ask_for(start_line: Any) -> None:
    line, router = await start_line([key("alice"), key("bob")], priority_ageing=60)
    for number in range(6):
        await line.join(f"a{number}", key="alice", priority=-1000)
    for number in range(2):
        await line.join(f"b{number}", key="bob")
    assert router.dispatch.who_waits().by_key == {"alice": 6, "bob": 2}
    assert await line.served() == ["a0", "b0", "a1", "b1", "a2", "a3", "a4", "a5"]


async def test_a_key_has_a_priority_of_its_own_which_a_reload_changes(start_line: Any) -> None:
    keys = [key("alice"), key("batch", 10)]
    line, router = await start_line(keys, priority_ageing=60)
    await line.join("batch 0", key="batch", priority=-1000)
    await line.join("batch 1", key="batch")
    await line.join("a0", key="alice", priority=9)
    await router.live.apply(replace(router.config, keys=(key("alice"), key("batch", -1))))
    await line.join("a1", key="alice", priority=9)
    await line.join("batch 2", key="batch", priority=-2000)
    assert await line.served() == ["batch 2", "a0", "a1", "batch 0", "batch 1"]


@pytest.mark.parametrize("low", [{"key": "batch"}, {"key": "alice", "priority": 10}])
async def test_nobody_starves_behind_requests_that_keep_coming(
    low: dict[str, Any], start_line: Any
) -> None:
    keys = [key("alice"), key("batch", 10)]
    line, router = await start_line(keys, priority_ageing=0.02)
    await line.join("low", **low)

    async def keep_coming() -> None:
        while True:
            assert await line.ask("again", key="alice", priority=-1) == 200

    others = [asyncio.create_task(keep_coming()) for _ in range(3)]
    await until(lambda: router.dispatch.waiting == 4)
    served = asyncio.create_task(line.served())
    done, _ = await asyncio.wait([served, *others], timeout=10, return_when="FIRST_COMPLETED")
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    assert done == {served}, "it waits as long as others come"


async def test_what_waits_is_shown_by_key_and_by_priority(
    start_line: Any, http: aiohttp.ClientSession
) -> None:
    line, router = await start_line([key("alice"), key("batch", 10)])
    await line.join("a", key="alice")
    for number in range(2):
        await line.join(f"batch {number}", key="batch")
    headers = {"x-api-key": "alice-secret"}
    async with http.get(f"{router.url}/router/snapshot", headers=headers) as answer:
        shown = await answer.json()
    assert shown["queued"] == 3
    assert shown["queued_by_priority"] == {"high": 0, "normal": 1, "low": 2}
    assert {one["name"]: one["queued"] for one in shown["keys"]} == {"alice": 1, "batch": 2}
    async with http.get(f"{router.url}/metrics", headers=headers) as answer:
        text = await answer.text()
    assert 'router_queue_waiting{priority="low"} 2.0' in text
    assert 'router_key_queued{key="batch"} 2.0' in text
    await line.served()
