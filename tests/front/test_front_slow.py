"""Clients that take their time: with the head of a request, and with its body."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from support import StartRouter, StartSim, reload_with, until
from wire import Client, RawClient, Scripted, Seen, answer, replies

from mvllm_router.server import Router

BODY = b'{"model":"tiny"}'
QUICK = 0.2  # seconds that a client may take where a test waits for that
PATIENT = 60.0  # and where it must not come to it


async def drip(client: RawClient, data: bytes, pause: float = 0.02) -> None:
    """Send byte by byte until the other side has closed."""
    for at in range(len(data)):
        client.send(data[at : at + 1])
        await asyncio.sleep(pause)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the router and aiohttp have logged as errors."""
    ours = ("mvllm_router", "aiohttp")
    return [
        r.getMessage() for r in caplog.records if r.levelname == "ERROR" and r.name.startswith(ours)
    ]


class Looks:
    """Counts how often the router has looked at its connections."""

    def __init__(self, router: Router) -> None:
        self.count = 0
        look = router.front.look

        def counting(patience: float, header_timeout: float) -> None:
            look(patience, header_timeout)
            self.count += 1

        router.front.look = counting  # type: ignore[method-assign]

    async def more(self, looks: int) -> None:
        before = self.count
        await until(lambda: self.count >= before + looks)


async def test_a_client_that_says_nothing_is_closed(start_router: StartRouter) -> None:
    router = await start_router(header_timeout=QUICK)
    async with Client(router.url) as client:
        assert await client.rest() == b""
    await until(lambda: not router.front.connections)


@pytest.mark.parametrize("line", [b"GET /", b"GET /v1/x HTTP/1.1\r\nhost: x\r\nx-a: "])
async def test_a_head_in_drops_is_a_408(line: bytes, start_router: StartRouter) -> None:
    router = await start_router(header_timeout=QUICK)
    async with Client(router.url) as client:
        client.send(line)
        dripping = asyncio.create_task(drip(client, b"A" * 10_000))
        head, _, body = (await client.all()).partition(b"\r\n\r\n")
        dripping.cancel()
        assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b"connection: close" in head
        assert json.loads(body)["error"]["code"] == "request_timeout"
    await until(lambda: not router.front.connections)


async def test_between_two_requests_a_client_may_idle(
    start_router: StartRouter, start_sim: StartSim
) -> None:
    router = await start_router(await start_sim(), header_timeout=0.1)
    looks = Looks(router)
    async with Client(router.url) as client:
        for _ in range(2):
            client.send(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await client.answer())[0].startswith(b"HTTP/1.1 200")
            await looks.more(12)  # that is three times as long
        client.send(b"GET /health HTTP/1.1\r\n")  # and then has as long as at first
        await looks.more(1)
        client.send(b"host: x\r\n\r\n")
        assert (await client.answer())[0].startswith(b"HTTP/1.1 200")
        client.send(b"GET /health HTTP/1.1\r\n")
        assert (await client.answer())[0].startswith(b"HTTP/1.1 408")


async def test_what_is_sent_ahead_does_not_end_the_request_that_runs(
    start_router: StartRouter,
) -> None:
    go_on = asyncio.Event()

    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(answer(b"whole"))

    async with Scripted(act) as server:
        router = await start_router(server.url, header_timeout=0.1)
        looks = Looks(router)
        async with Client(router.url) as client:
            client.post(BODY)
            await until(lambda: bool(server.seen))
            client.send(b"GET /health HTT")
            await looks.more(12)
            go_on.set()
            assert (await client.answer())[1] == b"whole"
            assert (await client.answer())[0].startswith(b"HTTP/1.1 408")


async def test_the_body_has_its_own_time(start_router: StartRouter) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url, header_timeout=0.1, request_timeout=PATIENT)
        looks = Looks(router)
        async with Client(router.url) as client:
            client.send(
                b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n"
                b"content-length: %d\r\n\r\n" % len(BODY)
            )
            for at in range(len(BODY)):
                client.send(BODY[at : at + 1])
                await looks.more(1)
            assert (await client.answer())[0].startswith(b"HTTP/1.1 200")


async def test_the_time_for_a_head_is_live(start_router: StartRouter) -> None:
    router = await start_router(header_timeout=PATIENT)
    async with Client(router.url) as client:
        await until(lambda: bool(router.front.connections))
        settings = replace(router.config.settings, header_timeout=QUICK)
        await reload_with(router, replace(router.config, settings=settings))
        assert await client.rest() == b""


# --- bodies


def open_upload(client: RawClient) -> None:
    client.send(
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )


async def test_a_body_in_drops_is_a_408_though_it_never_stops(start_router: StartRouter) -> None:
    router = await start_router(request_timeout=0.4)
    async with Client(router.url) as client:
        open_upload(client)
        dripping = asyncio.create_task(drip(client, b"1\r\n \r\n" * 10_000))
        head, body = await client.answer()
        dripping.cancel()
    assert head.startswith(b"HTTP/1.1 408")
    assert "less than 1024 bytes per second" in json.loads(body)["error"]["message"]


async def test_a_body_that_comes_slowly_but_steadily_is_taken(start_router: StartRouter) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url, request_timeout=0.3)
        async with Client(router.url) as client:
            open_upload(client)
            client.send(b'10\r\n{"model":"tiny" \r\n')
            for _ in range(10):
                client.send(b"1000\r\n" + b" " * 4096 + b"\r\n")
                await asyncio.sleep(0.05)
            client.send(b"1\r\n}\r\n0\r\n\r\n")
            assert (await client.answer())[0].startswith(b"HTTP/1.1 200")
        assert len(server.seen[0].body) == 10 * 4096 + 17


BROKEN = [
    b"ZZ\r\n",
    b"-5\r\nhello\r\n",
    b"5 \r\nhello\r\n",
    b"1\r\nxx",
    b"\r\n",
    b"FFFFFFFFFFFFFFFFFF\r\n",
]


@pytest.mark.parametrize("broken", BROKEN, ids=repr)
async def test_a_chunk_that_is_none_is_a_400_at_once_and_reaches_no_server(
    broken: bytes, start_router: StartRouter, caplog: pytest.LogCaptureFixture
) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url, request_timeout=PATIENT)
        async with Client(router.url) as client:
            open_upload(client)
            client.send(b'10\r\n{"model":"tiny"}\r\n')
            await until(lambda: router.pool.stats.in_flight == 1)
            client.send(broken)
            head, body = await client.answer()
            assert head.startswith(b"HTTP/1.1 400")
            assert b"connection: close\r\n" in head.lower()
            assert json.loads(body)["error"]["type"] == "invalid_request_error"
            assert await client.rest() == b""
        assert server.seen == []
    assert errors(caplog) == []


async def test_a_chunk_that_is_none_in_a_body_sent_ahead_fails_its_own_request(
    start_router: StartRouter,
) -> None:
    go_on = asyncio.Event()

    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(answer(b"whole"))

    async with Scripted(act) as server:
        router = await start_router(server.url, request_timeout=PATIENT)
        async with Client(router.url) as client:
            client.post(BODY)
            await until(lambda: bool(server.seen))
            open_upload(client)
            client.send(b'10\r\n{"model":"tiny"}\r\n')
            await read_all(router)
            client.send(b"ZZ\r\n")
            await read_all(router)
            go_on.set()
            assert (await client.answer())[1] == b"whole"
            assert (await client.answer())[0].startswith(b"HTTP/1.1 400")
            assert await client.rest() == b""
        assert len(server.seen) == 1


async def read_all(router: Router) -> None:
    """Wait until the router has read what was sent: the loop has been round a few times."""
    done: Callable[[], bool] = iter([False, False, False, True]).__next__
    await until(done)


@pytest.mark.parametrize(
    "framing",
    [b"1;" + b"x" * 4_000_000, b"0\r\n" + b"a: b\r\n" * 700_000],
    ids=["chunk extension", "trailers"],
)
async def test_framing_without_end_is_a_400(framing: bytes, start_router: StartRouter) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url, request_timeout=PATIENT)
        async with Client(router.url) as client:
            open_upload(client)
            reading = asyncio.create_task(client.all())
            client.send(b'10\r\n{"model":"tiny"}\r\n' + framing)
            assert b" 400 Bad Request\r\n" in await reading
        assert server.seen == []


async def test_a_client_that_leaves_in_mid_upload_is_no_error(
    start_router: StartRouter, caplog: pytest.LogCaptureFixture
) -> None:
    router = await start_router(request_timeout=PATIENT)
    async with Client(router.url) as client:
        open_upload(client)
        client.send(b"5\r\nhello\r\n")
        await until(lambda: router.front.bodies.bytes == 5)
    await until(lambda: router.pool.stats.in_flight == 0)
    assert router.front.bodies.bytes == 0
    assert errors(caplog) == []
