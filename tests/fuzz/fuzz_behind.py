"""A server that reads requests as strictly as RFC 9112 allows, and clients that send any bytes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fuzz_http import Malformed, Message, read_answer, read_request

# Seconds after which a connection that nobody closes counts as hanging.
LIMIT = 20.0
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Faults(logging.Handler):
    """Collects what is logged as an error by anybody."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else ""
        self.found.append(f"{record.getMessage()} {error!r}")


@dataclass
class Behind:
    """What came to the server, over all of its connections."""

    seen: list[Message] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    open: set[_Server] = field(default_factory=set)
    url: str = ""

    async def start(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Server(self), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    def unfinished(self) -> list[bytes]:
        """Return what was begun and not ended."""
        return [bytes(server.buffer) for server in self.open if server.buffer]

    def took(self, number: int) -> bool:
        """Tell whether request `number` was a HEAD."""
        return self.seen[number].start.startswith(b"HEAD ")


class _Server(asyncio.Protocol):
    def __init__(self, behind: Behind) -> None:
        self.behind = behind
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.behind.open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.behind.open.discard(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            try:
                message = read_request(bytes(self.buffer))
            except Malformed as error:
                self.behind.faults.append(str(error))
                return self.transport.abort()
            if not message.whole:
                return None
            self.buffer[:] = message.rest
            self.answer(message)
        return None

    def answer(self, message: Message) -> None:
        number = len(self.behind.seen)
        self.behind.seen.append(message)
        head = b"HTTP/1.1 200 OK\r\nx-number: %d\r\n" % number
        body = b"content-length: 2\r\n\r\n{}"
        if number % 3 == 2:
            body = b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        if self.behind.took(number):
            body = b"content-length: 2\r\n\r\n"
        self.transport.write(head + body)


class _Talk(asyncio.Protocol):
    """Keeps all that comes; a reset at the end takes nothing of it away."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.got += data

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(None)


async def talk(url: str, pieces: list[bytes]) -> bytes:
    """Send `pieces`, and return all that comes until the other side closes."""
    loop, port = asyncio.get_running_loop(), urlsplit(url).port
    transport, client = await loop.create_connection(_Talk, "127.0.0.1", port)
    try:
        for piece in pieces:
            if client.lost.done():
                break  # it has heard enough
            transport.write(piece)
            await asyncio.sleep(0)
        await asyncio.wait_for(client.lost, LIMIT)
    finally:
        transport.abort()
    return bytes(client.got)


def answers(data: bytes, behind: Behind) -> list[Message]:
    """Read all answers of one connection; only the router's own to HEAD cannot be told by sight."""
    while data.startswith(CONTINUE):
        data = data[len(CONTINUE) :]
    if not data:
        return []
    for message in _readings(data, behind):
        try:
            return [message, *answers(message.rest, behind)]
        except Malformed:
            continue
    raise Malformed(f"no answers: {data[:300]!r}")


def _readings(data: bytes, behind: Behind) -> Iterator[Message]:
    for is_head in (False, True):
        message = read_answer(data, is_head=is_head, closed=True)
        framed = message.values(b"content-length") + message.values(b"transfer-encoding")
        if not framed and message.body and message.keeps_alive:
            raise Malformed(f"a body without an end: {data[:300]!r}")
        number = number_of(message)
        known = None if number is None else behind.took(number)
        if message.whole and known in (None, is_head):
            yield message


def number_of(message: Message) -> int | None:
    """Return which request to the server an answer belongs to; None for the router's own."""
    values = message.values(b"x-number")
    return int(values[0]) if values else None
