"""Clients that come when there is no room are told so, and do not harm those that are there."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from support import StartRouter, StartSim, chat, until
from tls_kit import Authority
from wire import Client, RawClient

from mvllm_router.front import front, refusals
from mvllm_router.front.connection import ClientConnection
from mvllm_router.proxy.connections import Connections
from mvllm_router.server import Router

CHAT = "/v1/chat/completions"
HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


async def ask(client: RawClient) -> bytes:
    client.send(HEALTH)
    return (await client.answer())[0]


async def filled(router: Router, count: int) -> list[RawClient]:
    """Let the router have room for so many clients, and connect them."""
    router.front.max_connections = count
    those = [await RawClient.connect(router.url) for _ in range(count)]
    for client in those:
        assert (await ask(client)).startswith(b"HTTP/1.1 200")
    return those


def leave(*those: RawClient) -> None:
    for client in those:
        client.writer.transport.abort()


async def refused(router: Router) -> bytes:
    """Connect and ask, as any client does; return the whole answer to a refused one."""
    async with Client(router.url) as client:
        client.send(HEALTH)
        return await client.rest()


async def test_a_newcomer_gets_a_503_and_the_others_are_served(
    start_router: StartRouter, start_sim: StartSim
) -> None:
    router = await start_router(await start_sim())
    those = await filled(router, 3)
    head, _, body = (await refused(router)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"retry-after: 2" in head
    assert b"connection: close" in head
    assert json.loads(body)["error"]["code"] == "out_of_connections"
    those[0].post(json.dumps(chat(max_tokens=2)).encode())
    assert (await those[0].answer())[0].startswith(b"HTTP/1.1 200")
    leave(those.pop())
    await until(lambda: router.pool.stats.connections == 2)
    async with Client(router.url) as client:
        assert (await ask(client)).startswith(b"HTTP/1.1 200")
    leave(*those)


async def test_a_newcomer_over_tls_is_told_as_well(
    start_router: StartRouter, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("one")
    router = await start_router(tls_cert=files.cert, tls_key=files.key)
    router.front.max_connections = 1
    context = authority.for_clients()
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port, ssl=context)
    writer.write(HEALTH)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    late, other = await asyncio.open_connection("127.0.0.1", router.port, ssl=context)
    assert (await late.readline()).startswith(b"HTTP/1.1 503")
    for one in (writer, other):
        one.transport.abort()
    await until(lambda: router.pool.stats.connections == 0)


async def test_who_is_still_shaking_hands_counts_until_that_has_failed(
    start_router: StartRouter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Authority(tmp_path).issue("one")
    router = await start_router(tls_cert=files.cert, tls_key=files.key, request_timeout=0.4)
    router.front.max_connections = 2
    those = [await RawClient.connect(router.url) for _ in range(5)]  # they say nothing
    await until(lambda: router.pool.stats.refused == 3)
    monkeypatch.setattr(front, "_ARRIVAL", 0.0)
    await until(lambda: not router.front._arriving)
    leave(*those)


async def test_a_burst_of_newcomers_is_refused_before_any_of_them_is_served(
    start_router: StartRouter,
) -> None:
    router = await start_router()
    router.front.max_connections = 2
    made = [router.front.protocol() for _ in range(5)]
    assert [isinstance(one, ClientConnection) for one in made] == [True, True, False, False, False]


async def test_connections_and_refusals_are_counted(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    those = await filled(router, 2)
    for _ in range(5):
        assert b" 503 " in await refused(router)
    those[0].send(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
    _, text = await those[0].answer()
    assert b"\nrouter_connections 2.0\n" in text
    assert b"\nrouter_connections_refused_total 5.0\n" in text
    leave(*those)
    await until(lambda: router.pool.stats.connections == 0)


async def test_the_log_tells_of_refusals_once_for_many(
    start_router: StartRouter, caplog: pytest.LogCaptureFixture
) -> None:
    router = await start_router()
    those = await filled(router, 1)
    for _ in range(20):
        await refused(router)
    router.front.look(60, 60)
    router.front.look(60, 60)
    lines = [r.getMessage() for r in caplog.records if "refused" in r.getMessage()]
    assert len(lines) < 20
    assert sum(int(line.split()[0]) for line in lines) == 20
    leave(*those)


class Stubborn:
    """A client that never closes, whatever the other side says."""

    def __init__(self, router: Router) -> None:
        self.sock = socket.create_connection(("127.0.0.1", router.port))
        self.sock.setblocking(False)

    def is_cut(self, sends: bytes = b"x") -> bool:
        """Send something and tell whether the other side takes nothing any more."""
        try:
            self.sock.send(sends)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        return False


@pytest.fixture
def stubborn() -> Iterator[Callable[[Router], Stubborn]]:
    """Give a function that connects a stubborn client."""
    made: list[Stubborn] = []

    def connect(router: Router) -> Stubborn:
        made.append(Stubborn(router))
        return made[-1]

    yield connect
    for client in made:
        client.sock.close()


async def test_who_is_refused_and_stays_does_not_take_up_files_for_long(
    start_router: StartRouter,
    stubborn: Callable[[Router], Stubborn],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    router = await start_router(request_timeout=0.4)
    those = await filled(router, 1)
    monkeypatch.setattr(refusals, "_LINGER", 3600.0)
    refused = [stubborn(router) for _ in range(40)]
    await until(lambda: sum(client.is_cut() for client in refused) == 24)
    monkeypatch.setattr(refusals, "_LINGER", 0.0)
    await until(lambda: all(client.is_cut() for client in refused))
    leave(*those)


async def test_who_is_refused_cannot_go_on_sending(
    start_router: StartRouter,
    stubborn: Callable[[Router], Stubborn],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refusals, "_LINGER", 3600.0)
    router = await start_router()
    those = await filled(router, 1)
    client = stubborn(router)
    await until(lambda: client.is_cut(b"x" * 10_000))
    leave(*those)


async def test_refused_clients_do_not_keep_a_router_from_stopping(
    start_router: StartRouter,
    stubborn: Callable[[Router], Stubborn],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refusals, "_LINGER", 3600.0)
    router = await start_router()
    those = await filled(router, 1)
    client = stubborn(router)
    await until(lambda: router.pool.stats.refused == 1)
    await router.stop(drain_timeout=1)
    await until(client.is_cut)
    leave(*those)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
async def test_a_lack_of_files_is_not_held_against_the_server(
    code: int,
    start_router: StartRouter,
    start_sim: StartSim,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def opening(self: Connections) -> None:
        raise OSError(code, "Too many open files")

    router = await start_router(await start_sim(), await start_sim(), failure_threshold=1)
    with monkeypatch.context() as patch:
        patch.setattr(Connections, "_opening", opening)
        for _ in range(5):
            async with http.post(router.url + CHAT, json=chat()) as response:
                assert response.status == 503
                assert response.headers["retry-after"] == "2"
                assert (await response.json())["error"]["code"] == "out_of_connections"
    for backend in router.pool.backends.values():
        assert backend.is_up
        assert not backend.stats.failures
    async with http.post(router.url + CHAT, json=chat(max_tokens=1)) as response:
        assert response.status == 200
