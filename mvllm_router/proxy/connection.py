"""One connection to one backend: sends a request, hands on what comes back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from mvllm_router.proxy.failure import Failure

if TYPE_CHECKING:
    from mvllm_router.proxy.connections import Connections

# Above this, head and body are written one after the other instead of being copied together.
_COPIED_BODY = 65536


class Head:
    """The head of an answer."""

    __slots__ = ("headers", "http_1_0", "keeps_alive", "reason", "status")

    def __init__(
        self,
        status: int,
        reason: bytes,
        headers: list[tuple[bytes, bytes]],
        keeps_alive: bool,
        http_1_0: bool,
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.keeps_alive = keeps_alive
        self.http_1_0 = http_1_0


class Receiver(Protocol):
    """Who gets the answer. Each call may end in `Connection.abort` or `release`."""

    def received(self, head: Head | None, data: bytes, ended: bool) -> None:
        """Take what one read brought: the head once, some of the body, the end once."""

    def lost(self, failure: Failure, detail: str) -> None:
        """Learn that nothing more comes."""


class Connection(asyncio.Protocol):
    """Speaks HTTP/1.1 (and takes HTTP/1.0 answers) with one backend, one request at a time.

    Invariant: it is either idle (in its pool's list), or busy (`receiver` is set), or closed.
    """

    __slots__ = (
        "_answers_to_head",
        "_data",
        "_ended",
        "_fresh_head",
        "_headers",
        "_parser",
        "_pool",
        "_reading_paused",
        "_reason",
        "_surplus",
        "closed",
        "idle_since",
        "receiver",
        "transport",
        "used",
    )

    def __init__(self, pool: Connections) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None
        self.receiver: Receiver | None = None
        self.used = False  # it has carried a whole exchange before
        self.closed = False
        self.idle_since = 0.0
        self._reading_paused = False
        self._reset()

    def _reset(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._fresh_head: Head | None = None
        self._data: list[bytes] = []
        self._ended = False
        self._surplus = False
        self._answers_to_head = False

    # --- what the relay asks for

    def send(self, head: bytes, body: bytes, receiver: Receiver, *, is_head: bool) -> None:
        """Write one request; `is_head` tells that the answer has no body whatever it says."""
        assert self.transport is not None
        self.receiver = receiver
        self._answers_to_head = is_head
        if len(body) <= _COPIED_BODY:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)

    def release(self) -> None:
        """Give the connection back after a whole answer, for the next request."""
        if self._surplus or self.closed:
            return self.abort()
        self.receiver = None
        self.used = True
        self.resume_reading()
        self._reset()
        return self._pool.put_back(self)

    def abort(self) -> None:
        """Close at once; the backend learns that nobody waits for the answer any more."""
        self.receiver = None
        self.closed = True
        if self.transport is not None:
            self.transport.abort()

    def pause_reading(self) -> None:
        """Stop reading, because the client does not keep up."""
        if not self._reading_paused and not self.closed and self.transport is not None:
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._reading_paused and not self.closed and self.transport is not None:
            self._reading_paused = False
            self.transport.resume_reading()

    @property
    def reading_paused(self) -> bool:
        return self._reading_paused

    # --- what the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's has no such base class

    def data_received(self, data: bytes) -> None:
        receiver = self.receiver
        if receiver is None:  # nobody asked for this; never read it as the next answer
            self.closed = True
            self._pool.forget(self)
            return self.abort()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.closed = True
            self._hand_on(receiver, may_end=False)
            if self.receiver is receiver:
                self.receiver = None
                receiver.lost(Failure.GARBAGE, str(error))
            return self.abort()
        return self._hand_on(receiver, may_end=True)

    def eof_received(self) -> bool:
        return False  # close our side as well

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        receiver, self.receiver = self.receiver, None
        if receiver is None:
            self._pool.forget(self)
        elif error is None and self._lasts_until_close():
            receiver.received(None, b"", True)
        else:
            receiver.lost(Failure.RESET, str(error) if error else "connection closed")

    def _hand_on(self, receiver: Receiver, *, may_end: bool) -> None:
        head, self._fresh_head = self._fresh_head, None
        data = self._data[0] if len(self._data) == 1 else b"".join(self._data)
        self._data.clear()
        if head is not None or data or self._ended:
            receiver.received(head, data, self._ended and may_end)

    def _lasts_until_close(self) -> bool:
        """Tell whether the closing of the connection is the end of the body (RFC 9112, 6.3)."""
        names = {name.lower() for name, _ in self._headers}
        return bool(names) and not names & {b"content-length", b"transfer-encoding"}

    # --- what the parser finds

    def on_message_begin(self) -> None:
        if self._ended:  # a second answer to one request: not the next one's, nobody's
            self._surplus = True
        else:
            self._headers = []

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self._surplus:  # an interim answer; the real one follows
            self._reason = b""
            return
        http_1_0 = self._parser.get_http_version() == "1.0"
        keeps_alive = self._parser.should_keep_alive() and not self._answers_to_head
        self._fresh_head = Head(status, self._reason, self._headers, keeps_alive, http_1_0)
        if self._answers_to_head:
            self._ended = True

    def on_body(self, data: bytes) -> None:
        if not self._surplus:
            self._data.append(data)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:
            self._ended = True
