"""The memory that request bodies take together is bounded, and given back on every way out."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support import StartRouter, StartSim, chat, until
from wire import SSE, Client, RawClient, Scripted, Seen, answer, chunk

from mvllm_router.errors import Overloaded
from mvllm_router.front.bodies import MOST_BODIES, Bodies
from mvllm_router.front.request import Fields, Request
from mvllm_router.server import Router

SIZE = 1000


def body(size: int = SIZE) -> bytes:
    short = b'{"model":"tiny","x":""}'
    return short[:-2] + b"y" * (size - len(short)) + short[-2:]


def held(router: Router) -> int:
    return router.front.bodies.bytes


class Holding:
    """A server that holds its answers back until `go_on` is set."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces  # sent before it waits
        self.go_on = asyncio.Event()

    async def __call__(
        self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for piece in self.pieces:
            writer.write(piece)
        await self.go_on.wait()
        writer.write(b"0\r\n\r\n" if self.pieces else answer(b"{}"))


async def clients(router: Router, count: int) -> list[RawClient]:
    return [await RawClient.connect(router.url) for _ in range(count)]


async def test_bodies_are_held_up_to_the_bound_and_a_newcomer_is_told_to_come_back(
    start_router: StartRouter,
) -> None:
    holding = Holding()
    async with Scripted(holding) as server:
        router = await start_router(server.url, max_body_size=SIZE)
        those = await clients(router, MOST_BODIES)
        for client in those:
            client.post(body())
        await until(lambda: held(router) == MOST_BODIES * SIZE)
        async with Client(router.url) as late:
            late.post(body(50))
            head, got = await late.answer()
            assert head.startswith(b"HTTP/1.1 429")
            assert b"retry-after: 2\r\n" in head.lower()
            assert json.loads(got)["error"]["code"] == "overloaded"
            assert held(router) == MOST_BODIES * SIZE  # it holds nothing
            late.send(b"GET /v1/files HTTP/1.1\r\nhost: x\r\n\r\n")  # what has no body is taken
            await until(lambda: len(server.seen) == MOST_BODIES + 1)
            holding.go_on.set()
            await late.answer()
            for client in those:
                assert (await client.answer())[0].startswith(b"HTTP/1.1 200")
            assert held(router) == 0
            late.post(body())
            assert (await late.answer())[0].startswith(b"HTTP/1.1 200")
        for client in those:
            client.writer.transport.abort()


async def test_a_body_is_let_go_when_its_answer_begins(start_router: StartRouter) -> None:
    holding = Holding(SSE, chunk(b"data: 1\n\n"))
    async with Scripted(holding) as server:
        router = await start_router(server.url, max_body_size=SIZE)
        async with Client(router.url) as client:
            client.post(body())
            await client.until(b"data: 1\n\n")
            assert held(router) == 0
            assert router.pool.stats.in_flight == 1
            holding.go_on.set()
            await client.rest_of_chunks()
            client.post(body(500))  # on the same connection it is counted anew
            await client.until(b"data: 1\n\n")
            assert held(router) == 0


async def test_an_upload_is_counted_as_it_comes_and_not_as_it_is_announced(
    start_router: StartRouter,
) -> None:
    async with Scripted(Holding()) as server:
        router = await start_router(server.url, max_body_size=SIZE)
        async with Client(router.url) as client:
            client.send(
                b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % SIZE
            )
            await until(lambda: router.pool.stats.in_flight == 1)
            assert held(router) == 0
            client.send(body()[:400])
            await until(lambda: held(router) == 400)
            client.send(body()[400:])
            await until(lambda: held(router) == SIZE)
        await until(lambda: held(router) == 0)  # it left while it waited for the server


async def test_an_upload_that_meets_the_bound_half_way_gives_all_of_it_back(
    start_router: StartRouter,
) -> None:
    holding = Holding()
    async with Scripted(holding) as server:
        router = await start_router(server.url, max_body_size=SIZE)
        those = await clients(router, MOST_BODIES - 1)
        for client in those:
            client.post(body())
        async with Client(router.url) as last, Client(router.url) as beside:
            beside.post(body(500))
            await until(lambda: held(router) == (MOST_BODIES - 1) * SIZE + 500)
            last.send(
                b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % SIZE
            )
            last.send(body()[:400])
            await until(lambda: held(router) == (MOST_BODIES - 1) * SIZE + 900)
            last.send(body()[400:])
            assert (await last.answer())[0].startswith(b"HTTP/1.1 429")
            assert held(router) == (MOST_BODIES - 1) * SIZE + 500
        holding.go_on.set()
        for client in those:
            await client.answer()
            client.writer.transport.abort()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b'{"model":"tiny"', 400),
        (b'{"model":"unknown"}', 404),
        (b"x" * (SIZE + 1), 413),
        (b'{"model":"tiny"}', 502),
    ],
)
async def test_a_request_that_fails_gives_its_body_back(
    sent: bytes, status: int, start_router: StartRouter
) -> None:
    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with Scripted(act) as server:
        router = await start_router(server.url, max_body_size=SIZE)
        async with Client(router.url) as client:
            client.post(sent)
            assert (await client.answer())[0].startswith(b"HTTP/1.1 %d" % status)
            assert held(router) == 0


async def test_a_request_that_goes_to_another_server_is_counted_once(
    start_router: StartRouter, start_sim: StartSim
) -> None:
    holding = Holding()
    sizes: list[int] = []

    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sizes.append(held(router))
        await holding(seen, reader, writer)

    async def fail(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sizes.append(held(router))
        writer.transport.abort()

    async with Scripted(fail) as first, Scripted(fail) as second, Scripted(act) as third:
        router = await start_router(first.url, second.url, third.url, policy="round_robin")
        holding.go_on.set()
        asked = json.dumps(chat()).encode()
        async with Client(router.url) as client:
            for _ in range(3):
                client.post(asked)
                assert (await client.answer())[0].startswith(b"HTTP/1.1 200")
        assert set(sizes) == {len(asked)}


def request_of(bodies: Bodies) -> Request:
    connection: Any = None
    fields = Fields()
    return Request(connection, bodies, "POST", "/", fields, http_1_1=True, keep_alive=True)


def test_what_is_held_is_given_back_once() -> None:
    bodies = Bodies(longest=100)
    bodies.take(MOST_BODIES * 100 - 100)
    one, other = request_of(bodies), request_of(bodies)
    one.add(b"x" * 60)
    other.add(b"x" * 40)
    with pytest.raises(Overloaded):
        one.add(b"x")
    assert bodies.bytes == MOST_BODIES * 100
    one.release()
    one.release()
    assert bodies.bytes == MOST_BODIES * 100 - 60
    one.add(b"x" * 60)
    other.release()
    one.release()
    assert bodies.bytes == MOST_BODIES * 100 - 100
