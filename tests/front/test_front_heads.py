"""Heads of requests that are longer than any client's are refused, however they come."""

from __future__ import annotations

import asyncio

import pytest
from support import StartRouter, until
from wire import Client, RawClient, Scripted, answer, replies

START = b"GET /v1/files HTTP/1.1\r\nhost: x\r\n"
TOO_LONG = {
    "many small headers": START + b"a: b\r\n" * 10_000,
    "a few too many": START + b"".join(b"x-%d: y\r\n" % n for n in range(129)),
    "headers that are long together": START
    + b"".join(b"x-%d: %b\r\n" % (n, b"y" * 1000) for n in range(90)),
    "long headers": START + b"".join(b"x-%d: %b\r\n" % (n, b"y" * 30_000) for n in range(3)),
    "one header": START + b"x: " + b"y" * 40_000 + b"\r\n",
    "a name": START + b"x" * 40_000 + b": y\r\n",
    "a path": b"GET /v1/" + b"x" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n",
    "a query": b"GET /v1/files?" + b"x" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n",
    "a method": b"G" * 70_000 + b" / HTTP/1.1\r\nhost: x\r\n",
}
REFUSALS = (b" 400 Bad Request\r\n", b" 431 Request Header Fields Too Large\r\n")


async def send_in_pieces(client: RawClient, data: bytes, size: int) -> None:
    for at in range(0, len(data), size):
        if client.writer.transport.is_closing():
            return
        client.send(data[at : at + size])
        await asyncio.sleep(0)


async def send_without_end(client: RawClient, again: bytes) -> bytes:
    """Send until the other side closes; return what it said."""
    reading = asyncio.create_task(client.all())
    while not reading.done():
        await send_in_pieces(client, again, len(again))
        await asyncio.sleep(0.001)
    return await reading


@pytest.mark.parametrize("size", [1000, 10**6], ids=["in packets", "at once"])
@pytest.mark.parametrize("what", TOO_LONG)
async def test_a_head_that_is_too_long_is_refused_and_reaches_no_server(
    what: str, size: int, start_router: StartRouter
) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            reading = asyncio.create_task(client.all())
            await send_in_pieces(client, TOO_LONG[what] + b"\r\n", size)
            got = await reading
        assert any(refusal in got for refusal in REFUSALS), got[:200]
        assert len(got) < 2000
        assert server.seen == []


@pytest.mark.parametrize(
    ("begin", "again"),
    [(START, b"x-y: " + b"z" * 1000 + b"\r\n"), (START, b"a:b\r\n" * 200), (b"", b"\r\n" * 500)],
    ids=["long headers", "short headers", "empty lines"],
)
async def test_a_head_that_never_ends_is_refused(
    begin: bytes, again: bytes, start_router: StartRouter
) -> None:
    router = await start_router()
    async with Client(router.url) as client:
        client.send(begin)
        got = await send_without_end(client, again)
    assert any(refusal in got for refusal in REFUSALS)


@pytest.mark.parametrize("size", [1000, 10**6], ids=["in packets", "at once"])
async def test_a_long_head_of_a_client_that_means_it_is_taken(
    size: int, start_router: StartRouter
) -> None:
    lines = b"".join(b"x-%d: %b\r\n" % (n, b"y" * 600) for n in range(90))
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            for _ in range(2):
                await send_in_pieces(client, START + lines + b"\r\n", size)
                assert (await client.answer())[0].startswith(b"HTTP/1.1 200")
        assert len(server.seen) == 2


async def test_a_long_body_that_comes_with_its_head_is_no_long_head(
    start_router: StartRouter,
) -> None:
    body = b'{"model":"tiny","x":"' + b"y" * 3_000_000 + b'"}'
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            for _ in range(3):
                client.post(body)
                assert (await client.answer())[0].startswith(b"HTTP/1.1 200")
        assert len(server.seen) == 3


async def test_a_long_head_that_is_sent_ahead_ends_the_connection(
    start_router: StartRouter,
) -> None:
    """The client cannot be told: it waits for another answer first."""
    ended = asyncio.Event()

    async def act(seen: object, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()

    async with Scripted(act) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(b'{"model":"tiny"}')
            await until(lambda: bool(server.seen))
            client.send(START)
            assert await send_without_end(client, b"x-y: " + b"z" * 1000 + b"\r\n") == b""
            await ended.wait()  # and with it, the request on the server
