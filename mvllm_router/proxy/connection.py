"""One connection to one backend: sends a request, hands on what comes back."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from mvllm_router.fields import Fields
from mvllm_router.front.outlet import Outlet
from mvllm_router.proxy.failure import Failure
from mvllm_router.repeated import Repeated, repeated

if TYPE_CHECKING:
    from mvllm_router.proxy.connections import Connections

# Bytes of an answer's head, or of what follows its body; real ones have less than 1 kB.
_LONGEST_HEAD = 131072


class Head:
    """The head of an answer. `until_close`: its body ends with the connection (RFC 9112, 6.3)."""

    __slots__ = ("fields", "is_event_stream", "keeps_alive", "reason", "status", "until_close")

    def __init__(
        self, status: int, reason: bytes, fields: Fields, keeps_alive: bool, until_close: bool
    ) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.keeps_alive = keeps_alive
        self.until_close = until_close
        # Whether it is a stream of server-sent events that can be read.
        self.is_event_stream = (fields.first.get(b"content-type") or b"").lower().startswith(
            b"text/event-stream"
        ) and not fields.first.get(b"content-encoding")


class Receiver(Protocol):
    """Who gets the answer. Each call may end in `Connection.abort` or `release`."""

    def received(self, head: Head | None, data: bytes, ended: bool) -> None:
        """Take what one read brought: the head once and first, some of the body, the end once."""

    def lost(self, failure: Failure, detail: str) -> None:
        """Learn that nothing more comes."""


class Phase(Enum):
    """Where a connection is: `IDLE` ─send▶ `HEAD` ─▶ `BODY` ─▶ `ENDED` ─release▶ `IDLE`."""

    IDLE = 0
    HEAD = 1  # a request is out, its answer's head is not here yet
    BODY = 2
    ENDED = 3  # the whole answer is here
    CLOSED = 4


class Connection(asyncio.Protocol):
    """Speaks HTTP/1.1 (and takes HTTP/1.0 answers) with one backend, one request at a time.

    Invariant: `receiver` is set from `send` to `release`, `abort` or `lost`, and only then.
    """

    __slots__ = (
        "_answers_to_head",
        "_data",
        "_fields",
        "_head",
        "_last",
        "_parser",
        "_phase",
        "_pool",
        "_reading_paused",
        "_reason",
        "_since_body",
        "_surplus",
        "_until_close",
        "generation",
        "idle_since",
        "outlet",
        "receiver",
    )

    def __init__(self, pool: Connections) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._phase = Phase.IDLE
        self._reading_paused = False
        self._surplus = False  # bytes came that no request asked for
        self._last: Repeated[Head] | None = (
            None  # the head of the last answer, if it may come again
        )
        self.outlet: Outlet | None = None  # None: not connected yet
        self.receiver: Receiver | None = None
        self.idle_since = 0.0
        self.generation = 0  # see Connections
        self._reset()

    def _reset(self) -> None:
        self._fields = Fields()
        self._reason = b""
        self._head: Head | None = None
        self._since_body = 0  # bytes that brought nothing of the body: heads, trailers
        self._data: list[bytes] = []
        self._until_close = False
        self._answers_to_head = False

    # --- what the relay asks for

    @property
    def usable(self) -> bool:
        """Whether a request can be sent: it is open, and nothing has come unasked."""
        return self._phase is Phase.IDLE

    def send(self, head: bytes, body: bytes, receiver: Receiver, *, is_head: bool) -> None:
        """Write one request; `is_head` tells that the answer has no body whatever it says."""
        outlet = self.outlet
        if self._phase is not Phase.IDLE or outlet is None or outlet.is_closing():
            return receiver.lost(Failure.RESET, "closed before it was asked")
        self.receiver = receiver
        self._answers_to_head = is_head
        self._phase = Phase.HEAD
        outlet.write(head)
        return outlet.write(body) if body else None

    def release(self) -> None:
        """Give the connection back after a whole answer, for the next request.

        Not if more came than the answer, nor if the request has not gone out whole (a server
        may refuse an upload early): the next request would follow its rest.
        """
        if self._phase is not Phase.ENDED or self._surplus or self.unsent:
            return self.abort()
        self.receiver = None
        if self._reading_paused:
            self.resume_reading()
        self._reset()
        self._phase = Phase.IDLE
        return self._pool.put_back(self)

    def abort(self) -> None:
        """Close at once; the backend learns that nobody waits for the answer any more."""
        self.receiver = None
        self._phase = Phase.CLOSED
        if self.outlet is not None:
            self.outlet.abort()

    def pause_reading(self) -> None:
        """Stop reading, because the client does not keep up."""
        outlet = self.outlet
        if not self._reading_paused and outlet is not None and not outlet.is_closing():
            self._reading_paused = True
            outlet.transport.pause_reading()

    def resume_reading(self) -> None:
        outlet = self.outlet
        if self._reading_paused and outlet is not None and not outlet.is_closing():
            self._reading_paused = False
            outlet.transport.resume_reading()

    @property
    def unsent(self) -> int:
        """Bytes of the request that the backend has not taken yet."""
        return 0 if self.outlet is None else self.outlet.unsent

    @property
    def reading_paused(self) -> bool:
        return self._reading_paused

    # --- what the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport has no such base class.
        self.outlet = Outlet(cast(asyncio.Transport, transport), self._pool.outbox)

    def data_received(self, data: bytes) -> None:
        receiver = self.receiver
        if receiver is None:  # nobody asked for this; never read it as the next answer
            self._pool.forget(self)
            return self.abort()
        is_first = self._phase is Phase.HEAD and not self._since_body
        if is_first and self._last is not None and self._is_repeated(self._last, data):
            return self._hand_on(receiver)
        problem = ""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self._phase is not Phase.ENDED:
                problem = _reason(error)
            self._surplus = True  # what follows a whole answer is not the answer's fault
        if not self._data:
            problem = problem or self._out_of_proportion(len(data))
        if is_first and self._phase is Phase.ENDED and not self._surplus:
            self._remember(data)
        self._hand_on(receiver)
        if problem and self.receiver is receiver:
            self.receiver = None
            receiver.lost(Failure.GARBAGE, problem)
            return self.abort()
        return None

    def _remember(self, data: bytes) -> None:
        """Keep the head of a whole answer that came in one read."""
        head = self._head
        if head is not None and head.status == 200 and not self._answers_to_head:
            self._last = repeated(data, head.fields.length, head)

    def _is_repeated(self, last: Repeated[Head], data: bytes) -> bool:
        """Take `data` without parsing it if it is the last answer with another body."""
        found = None if self._answers_to_head else last.body_of(data)
        if found is None:
            return False
        length, body = found
        head = last.meaning
        fields = head.fields.with_length(length)
        self._head = Head(head.status, head.reason, fields, head.keeps_alive, until_close=False)
        if body:
            self._data.append(body)
        self._phase = Phase.ENDED
        return True

    def _out_of_proportion(self, size: int) -> str:
        """Count what brought nothing of the body; return what there is too much of, if anything."""
        self._since_body += size
        if self._since_body > _LONGEST_HEAD and self._phase is not Phase.ENDED:
            return f"its head or its trailers are longer than {_LONGEST_HEAD} bytes"
        return ""

    def eof_received(self) -> bool:
        return False  # close our side as well

    def connection_lost(self, error: Exception | None) -> None:
        phase, self._phase = self._phase, Phase.CLOSED
        del self._parser  # it knows this connection: a cycle
        receiver, self.receiver = self.receiver, None
        if self.outlet is not None:
            self.outlet.transport.close()  # else Python 3.10 warns of a forgotten TLS connection
        if receiver is None:
            self._pool.forget(self)
        elif error is None and phase is Phase.BODY and self._until_close:
            receiver.received(None, b"", True)
        else:
            receiver.lost(Failure.RESET, str(error) if error else "connection closed")

    def _hand_on(self, receiver: Receiver) -> None:
        head, self._head = self._head, None
        data = self._data[0] if len(self._data) == 1 else b"".join(self._data)
        self._data.clear()
        ended = self._phase is Phase.ENDED
        if head is not None or data or ended:
            receiver.received(head, data, ended)

    # --- what the parser finds

    def on_message_begin(self) -> None:
        if self._phase is Phase.ENDED:  # a second answer to one request: nobody's
            self._surplus = True

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is Phase.HEAD:  # else it is a trailer
            self._fields.add(name, value)

    def on_headers_complete(self) -> None:
        if self._phase is not Phase.HEAD:
            return
        status = self._parser.get_status_code()
        fields = self._fields
        if status < 200:  # an interim answer; the real one follows
            self._reason = b""
            self._fields = Fields()
            return
        no_body = self._answers_to_head or status in (204, 304)
        unframed = fields.length is None and b"transfer-encoding" not in fields.first
        self._until_close = unframed and not no_body
        keeps_alive = self._parser.should_keep_alive() and not self._answers_to_head
        self._head = Head(status, self._reason, fields, keeps_alive, self._until_close)
        self._phase = Phase.ENDED if self._answers_to_head else Phase.BODY

    def on_body(self, data: bytes) -> None:
        if self._phase is Phase.BODY:
            self._data.append(data)
            self._since_body = 0

    def on_message_complete(self) -> None:
        if self._phase is Phase.BODY:
            self._phase = Phase.ENDED


def _reason(error: Exception) -> str:
    if isinstance(error, httptools.HttpParserUpgrade):  # it only tells where
        return "it switches to another protocol"
    return str(error) or type(error).__name__
