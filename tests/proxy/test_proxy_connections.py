"""Why a connection could not be opened."""

from __future__ import annotations

import asyncio
import errno
import socket
import time

import pytest

from mvllm_router.config import ServerSpec
from mvllm_router.front.outlet import Outbox
from mvllm_router.proxy.connection import Connection
from mvllm_router.proxy.connections import CannotConnect, Connections
from mvllm_router.proxy.failure import Failure


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def failure_of(connections: Connections) -> Failure:
    with pytest.raises(CannotConnect) as caught:
        await connections.open(5)
    return caught.value.failure


async def test_nobody_at_an_address_is_a_refusal() -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    assert (
        await failure_of(Connections(ServerSpec(url, "s"), time.monotonic, Outbox()))
        is Failure.REFUSED
    )


@pytest.mark.parametrize(
    ("number", "failure"),
    [(errno.ECONNREFUSED, Failure.REFUSED), (errno.ENETUNREACH, Failure.UNREACHABLE)],
)
async def test_a_name_with_several_addresses_is_refused_only_by_all_of_them(
    number: int, failure: Failure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `localhost`, which is 127.0.0.1 and ::1: asyncio tells of both in one text."""

    async def opening(self: Connections) -> Connection:
        raise OSError(
            "Multiple exceptions: "
            f"[Errno {errno.ECONNREFUSED}] Connect call failed ('::1', 1, 0, 0), "
            f"[Errno {number}] Connect call failed ('127.0.0.1', 1)"
        )

    monkeypatch.setattr(Connections, "_opening", opening)
    connections = Connections(ServerSpec("http://localhost:1", "s"), time.monotonic, Outbox())
    assert await failure_of(connections) is failure


def test_that_is_how_asyncio_says_it() -> None:
    async def two_addresses(*_: object, **__: object) -> list[object]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", closed_port()))
            for _ in range(2)
        ]

    loop = asyncio.new_event_loop()
    loop.getaddrinfo = two_addresses  # type: ignore[assignment]
    connections = Connections(ServerSpec("http://localhost:1", "s"), time.monotonic, Outbox())
    assert loop.run_until_complete(failure_of(connections)) is Failure.REFUSED
    loop.close()
