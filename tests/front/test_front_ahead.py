"""Requests that are sent ahead of their turn: answered in order, and bounded."""

from __future__ import annotations

import asyncio

import pytest
from support import StartRouter, StartSim, until
from wire import Client, Scripted, Seen, answer, replies

WRONG_KEY = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer wrong\r\n\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
BODY = b'{"model":"tiny"}'


async def held_back(seen: Seen, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Answer nothing; return when the router gives the request up."""
    await reader.read()


@pytest.mark.parametrize("one", [WRONG_KEY, HEALTH], ids=["refused at once", "answered in a task"])
async def test_hundreds_that_come_in_one_read_are_answered_one_by_one(
    one: bytes, start_router: StartRouter
) -> None:
    router = await start_router(api_key="right")
    async with Client(router.url) as client:
        client.send(one * 900)
        statuses = [(await client.answer())[0].split(b" ")[1] for _ in range(900)]
    assert set(statuses) == {b"401" if one == WRONG_KEY else b"200"}


async def test_relayed_ones_are_answered_in_the_order_in_which_they_came(
    start_router: StartRouter,
) -> None:
    async with Scripted(replies(*(answer(b"%d" % number) for number in range(20)))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            for _ in range(10):
                client.post(BODY)
                client.send(HEALTH)
            bodies = [(await client.answer())[1] for _ in range(20)]
    assert bodies[::2] == [b"%d" % number for number in range(10)]
    assert all(b'"status"' in body for body in bodies[1::2])


async def test_who_sends_thousands_ahead_is_cut_off(start_router: StartRouter) -> None:
    async with Scripted(held_back) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(BODY)
            await until(lambda: bool(server.seen))
            client.send(HEALTH * 2000)
            assert await client.rest() == b""
        await until(lambda: not router.front.connections)
    assert router.pool.stats.in_flight == 0


async def test_nothing_is_read_while_much_waits_for_its_turn(start_router: StartRouter) -> None:
    go_on = asyncio.Event()

    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(answer(b"{}"))

    large = b'{"model":"tiny","x":"%b"}' % (b"y" * 40_000)
    async with Scripted(act) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            for _ in range(200):
                client.post(large)
            await until(lambda: bool(server.seen))
            for _ in range(20):
                await asyncio.sleep(0)
            assert router.front.bodies.bytes < 2_000_000  # of 8
            go_on.set()
            for _ in range(200):
                assert (await client.answer())[1] == b"{}"
    assert router.front.bodies.bytes == 0


async def test_what_waits_for_its_turn_is_given_back_when_its_client_leaves(
    start_router: StartRouter, start_sim: StartSim
) -> None:
    engine = await start_sim()
    engine.hold()
    router = await start_router(engine)
    async with Client(router.url) as client:
        for _ in range(5):
            client.post(b'{"model":"tiny","messages":[{"role":"user","content":"x"}]}')
        await until(lambda: router.pool.stats.in_flight == 5)
    await until(lambda: router.pool.stats.in_flight == 0)
    assert router.front.bodies.bytes == 0
    assert sum(router.pool.stats.client_left.values()) == 5
