"""Sends requests when they are due, whatever became of the others, and notes what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from workloads import Request

PATIENCE = 20.0  # seconds after the last request; what is not answered by then never was
_IDLE = 2.0  # seconds after which a connection is not used again: servers close theirs after 5
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_TAIL = 200  # bytes of the end of an answer that are kept


@dataclass(eq=False)
class Call:
    """What came of a request. Times are those of `time.monotonic`; 0 is never.

    `error` is empty where the answer came whole.
    """

    request: Request
    due: float
    sent: float = 0.0
    first: float = 0.0
    ended: float = 0.0
    error: str = ""


class _Connection(asyncio.Protocol):
    """One connection; it carries one call after the other."""

    def __init__(self, over: Callable[[_Connection, Call], None]) -> None:
        self._over = over
        self._call: Call | None = None
        self.fresh = True
        self.used = 0.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def send(self, call: Call, data: bytes) -> None:
        self._call, self._head, self._tail, self._left = call, b"", b"", 0
        self._status, self._broken = 0, False
        assert self.transport is not None
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        call = self._call
        if call is None:
            return
        if not self._status:
            data = self._read_head(data)
        if not self._status:
            return
        if not call.first and b"data: " in data:
            call.first = time.monotonic()
        if b'{"error"' in data:
            self._broken = True
        self._tail = (self._tail + data)[-_TAIL:]
        self._left -= len(data)
        if self._tail.endswith(b"\r\n0\r\n\r\n") if self._chunked else self._left <= 0:
            self._end(call, self._verdict())

    def _read_head(self, data: bytes) -> bytes:
        """Return what follows the head, once it is here."""
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return b""
        self._status = int(head[9:12])
        self._chunked = _CHUNKED.search(head) is not None
        self._closes = _CLOSES.search(head) is not None
        length = _LENGTH.search(head)
        self._left = int(length[1]) if length else 0
        return b"\r\n" + rest if self._chunked else rest

    def _verdict(self) -> str:
        if self._status != 200:
            return f"status {self._status}"
        if self._broken or b"data: [DONE]" not in self._tail:
            return "broken off"
        return ""

    def _end(self, call: Call, error: str) -> None:
        self._call, self.fresh = None, False
        call.ended = self.used = time.monotonic()
        call.error = error
        if self._closes and self.transport is not None:
            self.transport.close()
        self._over(self, call)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        call = self._call
        if call is not None:
            self._closes = False
            # A connection that was closed while it was idle says nothing about the server.
            idle = not self.fresh and not self._head and not call.first
            self._end(call, "" if idle else "lost")

    @property
    def open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()


class Sender:
    """Sends calls to one address."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._netloc = parts.netloc
        self._idle: list[_Connection] = []
        self._every: set[_Connection] = set()
        self._left = 0
        self._done = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(
        self, requests: Sequence[Request], at: Sequence[tuple[float, Callable[[], Awaitable[None]]]]
    ) -> list[Call]:
        """Send all of them; `at` are things to do meanwhile, with times as those of requests.

        The first request is sent at once.
        """
        begun = time.monotonic() - min(requests[0].due, 0.0)
        calls = [Call(request, begun + request.due) for request in requests]
        self._left = len(calls)
        others = [asyncio.ensure_future(_at(begun + when, do)) for when, do in at]
        for call in calls:
            pause = call.due - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            call.sent = time.monotonic()
            self._start(call)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._done.wait(), PATIENCE)
        await asyncio.gather(*others)
        self._give_up(calls)
        return calls

    def _start(self, call: Call) -> None:
        now = time.monotonic()
        while self._idle:
            connection = self._idle.pop()
            if connection.open and now - connection.used < _IDLE:
                connection.send(call, self._bytes(call))
                return
            if connection.transport is not None:
                connection.transport.close()
        task = asyncio.ensure_future(self._connect(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, call: Call) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self._over), self._host, self._port
            )
        except OSError as error:
            call.ended, call.error = time.monotonic(), f"refused: {error}"
            self._count()
            return
        self._every.add(connection)
        connection.send(call, self._bytes(call))

    def _bytes(self, call: Call) -> bytes:
        body, session = call.request.body, call.request.session
        extra = f"x-session-id: {session}\r\n" if session else ""
        return (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self._netloc}\r\n"
            "content-type: application/json\r\nuser-agent: bench\r\naccept: */*\r\n"
            f"{extra}content-length: {len(body)}\r\n\r\n"
        ).encode() + body

    def _over(self, connection: _Connection, call: Call) -> None:
        if connection.open:
            self._idle.append(connection)
        else:
            self._every.discard(connection)
        if not call.error and not call.first:
            call.ended = 0.0
            self._start(call)  # once more, on another connection
        else:
            self._count()

    def _count(self) -> None:
        self._left -= 1
        if not self._left:
            self._done.set()

    def _give_up(self, calls: Sequence[Call]) -> None:
        now = time.monotonic()
        for call in calls:
            if not call.ended:
                call.ended, call.error = now, "no end"
        for connection in list(self._every):
            if connection.transport is not None:
                connection.transport.abort()


async def _at(when: float, do: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(max(0.0, when - time.monotonic()))
    await do()
