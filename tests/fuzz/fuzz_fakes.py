"""Transports, a pool and a receiver without a network, and what a connection made of an answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

from mvllm_router.front.outlet import Outbox, Outlet
from mvllm_router.proxy.connection import Connection, Head, Phase
from mvllm_router.proxy.connections import Connections
from mvllm_router.proxy.failure import Failure


class FakeTransport:
    """Takes what is written; tells how it was ended."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.aborted = False
        self.closed = False
        self.paused = False

    def write(self, data: bytes) -> None:
        assert not self.is_closing(), "written to a closed transport"
        self.written += data

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.aborted or self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def as_transport(self) -> asyncio.Transport:
        return cast(asyncio.Transport, self)


class Collecting(Outbox):
    """Sends when it is told to: no loop need be running."""

    def add(self, outlet: Outlet) -> None:
        self._waiting.append(outlet)


@dataclass
class FakePool:
    """Stands for `Connections`: the idle ones, and those that were dropped."""

    idle: list[Connection] = field(default_factory=list)
    forgotten: int = 0
    outbox: Outbox = field(default_factory=lambda: Collecting())

    def put_back(self, connection: Connection) -> None:
        assert connection not in self.idle
        self.idle.append(connection)

    def forget(self, connection: Connection) -> None:
        self.forgotten += 1
        if connection in self.idle:
            self.idle.remove(connection)


def connect() -> tuple[Connection, FakeTransport, FakePool]:
    """Return a connection that is open and idle."""
    pool, transport = FakePool(), FakeTransport()
    connection = Connection(cast(Connections, pool))
    connection.connection_made(transport.as_transport())
    return connection, transport, pool


@dataclass
class Told:
    """A receiver that notes all it is told, and gives the connection back as an exchange does."""

    connection: Connection
    head: Head | None = None
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    failure: Failure | None = None
    detail: str = ""

    def received(self, head: Head | None, data: bytes, ended: bool) -> None:
        assert not self.ended, "something came after the end"
        assert self.failure is None, "something came after the loss"
        assert (self.head is None) == (head is not None), "the head comes once and first"
        self.head = head or self.head
        self.body += data
        self.ended = ended
        if ended and self.head is not None and self.head.keeps_alive:
            self.connection.release()
        elif ended:
            self.connection.abort()

    def lost(self, failure: Failure, detail: str) -> None:
        assert not self.ended, "lost after the end"
        assert self.failure is None, "lost twice"
        self.failure, self.detail = failure, detail

    def summary(self) -> tuple[object, ...]:
        head = self.head
        shown = head and (
            head.status,
            head.reason,
            tuple(head.fields.raw),
            head.keeps_alive,
            head.until_close,
        )
        return shown, bytes(self.body), self.ended, self.failure, self.detail


def feed(connection: Connection, transport: FakeTransport, pieces: list[bytes], end: str) -> None:
    """Let `pieces` be read one by one, and then the connection end: "eof", "reset" or "open".

    As with a real transport, nothing is read any more once it was aborted.
    """
    for piece in pieces:
        if transport.is_closing():
            break
        connection.data_received(piece)
    if end == "open" and not transport.is_closing():
        return
    if transport.is_closing() or end == "eof":
        connection.connection_lost(None)
    else:
        connection.connection_lost(ConnectionResetError("reset by peer"))


def answered(pieces: list[bytes], *, is_head: bool = False, end: str = "eof") -> Told:
    """Ask a server that answers `pieces`; return what came of it."""
    connection, transport, pool = connect()
    told = Told(connection)
    connection.send(b"GET / HTTP/1.1\r\n\r\n", b"", told, is_head=is_head)
    feed(connection, transport, pieces, end)
    if end != "open" or transport.is_closing():
        assert connection._phase is Phase.CLOSED
        assert connection.receiver is None
        assert not connection.usable
        assert pool.idle == [], "a closed connection waits for work"
    return told
