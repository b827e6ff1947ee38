"""A server cannot keep the router busy with an answer that has no end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle

import pytest

from mvllm_router.config import ServerSpec
from mvllm_router.control.prober import NoAnswer, Prober

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
# How it begins, and what follows without end.
ENDLESS = {
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"),
    "small headers": (OK, b"a: b\r\n"),
    "one header": (OK + b"a: ", b"b"),
    "reason": (b"HTTP/1.1 200 ", b"K"),
    "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n"),
    "chunk extension": (CHUNKED + b"1;", b"x"),
    "body": (OK + b"\r\n", b"vllm:num_requests_running 1\n"),
    "empty lines": (b"", b"\r\n"),
    "noise": (b"", b"\xff\x00"),
}


class Flood:
    """A server that answers with `begin` and then with `again` without end.

    With a pause, in seconds, `again` comes byte by byte.
    """

    def __init__(self, begin: bytes, again: bytes, pause: float = 0) -> None:
        self._begin = begin
        self._pieces = [bytes([byte]) for byte in again] if pause else [again * 4096]
        self._pause = pause
        self.sent = 0
        self.ended = asyncio.Event()  # the client has closed

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self._begin)
            for piece in cycle(self._pieces):
                writer.write(piece)
                self.sent += len(piece)
                await writer.drain()
                await asyncio.sleep(self._pause)
        except OSError:
            pass
        finally:
            writer.close()
            self.ended.set()


@asynccontextmanager
async def listening(flood: Flood) -> AsyncIterator[ServerSpec]:
    server = await asyncio.start_server(flood.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield ServerSpec(url=f"http://127.0.0.1:{port}", name="s")
    server.close()


@pytest.fixture
async def prober() -> AsyncIterator[Prober]:
    made = Prober()
    yield made
    await made.close()


@pytest.mark.parametrize("what", ENDLESS)
async def test_an_answer_without_end_is_given_up_long_before_its_time_is_over(
    what: str, prober: Prober
) -> None:
    flood = Flood(*ENDLESS[what])
    async with listening(flood) as spec:
        with pytest.raises(NoAnswer) as caught:
            await prober.get(spec, "/metrics", 60)
        await flood.ended.wait()
    assert not caught.value.timed_out
    assert not caught.value.refused
    assert flood.sent < 16 * 2**20  # what the kernel holds for both sides included


async def test_a_few_interim_answers_are_passed_over(prober: Prober) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(20):  # on one connection; they count for one answer each
            await reader.readuntil(b"\r\n\r\n")
            writer.write(hints * 3 + OK + b"content-length: 2\r\n\r\nhi")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    spec = ServerSpec(url=f"http://127.0.0.1:{port}", name="s")
    for _ in range(20):
        assert (await prober.get(spec, "/health", 10)).body == b"hi"
    server.close()


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (OK, b"a: b\r\n"),
        (OK + b"content-length: 1000000\r\n\r\n", b"x"),
        (OK + b"\r\n", b"x"),
        (CHUNKED, b"1\r\nx\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ],
    ids=["head", "body", "body until the end", "chunks", "interim answers"],
)
async def test_an_answer_in_drops_ends_with_its_time(
    begin: bytes, again: bytes, prober: Prober
) -> None:
    """A byte now and then is no reason to wait for longer."""
    flood = Flood(begin, again, pause=0.02)
    async with listening(flood) as spec:
        with pytest.raises(NoAnswer) as caught:
            await prober.get(spec, "/health", 0.3)
        await flood.ended.wait()
    assert caught.value.timed_out
