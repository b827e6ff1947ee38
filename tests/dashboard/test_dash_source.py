"""The source against a real router: what it sees, what it changes, and what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from dash_kit import Clock
from support import StartRouter, StartSim, chat, until

from mvllm_router.client import NotAuthorised, Refused, Unreachable
from mvllm_router.dashboard import changes
from mvllm_router.dashboard.app import Dashboard
from mvllm_router.dashboard.source import HttpSource, hint_for


@pytest.fixture
async def sources() -> AsyncIterator[list[HttpSource]]:
    """Give a list whose sources are closed at the end."""
    made: list[HttpSource] = []
    yield made
    for source in made:
        await source.close()


async def test_it_reads_and_changes_a_router(
    start_router: StartRouter, start_sim: StartSim, sources: list[HttpSource]
) -> None:
    router = await start_router(await start_sim())
    source = HttpSource(router.url.removeprefix("http://"))
    sources.append(source)
    assert (await source.get("/router/snapshot"))["policy"] == "least_load"
    change = changes.drain("s0")
    answer = await source.send(change.method, change.path, change.body)
    assert answer["state"] == "drain"
    assert router.pool.backends["s0"].draining
    with pytest.raises(Refused, match="There is no server"):
        await source.send("PATCH", "/router/backends/nobody", {"state": "drain"})


async def test_a_key_is_asked_for_and_never_repeated(
    start_router: StartRouter, start_sim: StartSim, sources: list[HttpSource]
) -> None:
    router = await start_router(await start_sim(), api_key="right-key")
    for key in (None, "wrong-key"):
        source = HttpSource(router.url, key)
        sources.append(source)
        with pytest.raises(NotAuthorised) as error:
            await source.get("/router/snapshot")
        assert "wrong-key" not in str(error.value)
        assert "ROUTER_API_KEY" in hint_for(error.value)
    source = HttpSource(router.url, "right-key")
    sources.append(source)
    assert (await source.get("/router/snapshot"))["servers"]


async def test_nobody_and_somebody_else_are_told_apart(sources: list[HttpSource]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    source = HttpSource(f"http://127.0.0.1:{port}")
    sources.append(source)
    with pytest.raises(Unreachable, match="JSON"):
        await source.get("/router/snapshot")
    server.close()
    await server.wait_closed()
    # Without the address, which stands above it on the screen and is long.
    with pytest.raises(Unreachable, match=r"^no router answers: connection refused$"):
        await source.get("/router/snapshot")


async def test_the_dashboard_shows_a_real_router_that_comes_and_goes(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    router = await start_router(await start_sim())
    clock = Clock()
    app = Dashboard(HttpSource(router.url), interval=0.05, clock=clock)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(lambda: app.link.last is not None)
        async with http.post(f"{router.url}/v1/chat/completions", json=chat()) as answer:
            assert answer.status == 200
            await answer.read()
        await until(lambda: app.board.snapshot["requests"]["total"] > 0)
        await pilot.press("d", "y")  # the only server of its model: it asks
        await until(lambda: router.pool.backends["s0"].draining)
        await pilot.press("e")
        await until(lambda: not router.pool.backends["s0"].draining)
        await router.stop(drain_timeout=1)
        await until(lambda: app.link.failures > 0)
        await pilot.pause()
        assert app.table.chosen is not None
