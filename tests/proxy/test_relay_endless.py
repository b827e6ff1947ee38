"""Servers that begin an answer and never come to its point are given up at once."""

from __future__ import annotations

import asyncio

import pytest
from support import StartRouter, StartSim, prefer
from wire import OK, SSE, Client, Scripted, Seen, chunk

from mvllm_router.config import ServerSpec

BODY = b'{"model":"tiny"}'
PATIENT = 60.0  # seconds of silence that are allowed: none of this is told by them
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


class Endless:
    """Answers with `begin` and then with `again` for as long as somebody reads."""

    def __init__(self, begin: bytes, again: bytes) -> None:
        self._begin = begin
        self._again = again * (16384 // len(again))
        self.ended = asyncio.Event()

    async def __call__(
        self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(self._begin)
        try:
            while True:
                writer.write(self._again)
                await writer.drain()
        finally:
            self.ended.set()


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (OK, b"a: b\r\n"),
        (OK + b"a: ", b"b"),
        (b"HTTP/1.1 200 ", b"K"),
        (b"", b"\r\n"),
    ],
    ids=["hints", "continues", "headers", "one header", "reason", "empty lines"],
)
async def test_a_head_without_end_is_replaced_by_another_server(
    begin: bytes, again: bytes, start_router: StartRouter, start_sim: StartSim
) -> None:
    endless = Endless(begin, again)
    async with Scripted(endless) as bad:
        good = await start_sim()
        router = await start_router(
            ServerSpec(url=bad.url, name="bad"), good, request_timeout=PATIENT
        )
        prefer(router, "bad")
        async with Client(router.url) as client:
            client.post(BODY.replace(b"}", b',"prompt":"x","max_tokens":1}'), b"/v1/completions")
            head, _ = await client.answer()
        await endless.ended.wait()
    assert b"x-router-backend: s1\r\n" in head
    assert router.pool.backends["bad"].stats.failures


@pytest.mark.parametrize(
    ("begin", "again"),
    [(b"1;", b"x"), (b"0\r\n", b"a: b\r\n"), (b"", b"0")],
    ids=["chunk extension", "trailers", "zeros"],
)
async def test_framing_without_end_ends_a_stream_with_an_error(
    begin: bytes, again: bytes, start_router: StartRouter
) -> None:
    endless = Endless(SSE + chunk(b"data: 1\n\n") + begin, again)
    async with Scripted(endless) as server:
        router = await start_router(server.url, request_timeout=PATIENT)
        async with Client(router.url) as client:
            client.post(BODY)
            last = await client.last_of_stream()
        await endless.ended.wait()
    assert b"data: 1\n\n" in last
    assert b'data: {"error"' in last
    assert b"[DONE]" not in last


async def test_a_whole_answer_in_chunks_of_one_byte_is_no_endless_one(
    start_router: StartRouter,
) -> None:
    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n")

    async with Scripted(act) as server:
        router = await start_router(server.url, request_timeout=PATIENT)
        async with Client(router.url) as client:
            client.post(BODY, b"/v1/completions", b"connection: close")
            await client.head()
            got = await client.all()
    assert got.count(b"x") == 100_000
    assert got.endswith(b"0\r\n\r\n")
