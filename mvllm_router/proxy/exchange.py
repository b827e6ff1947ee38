"""One attempt: a request on one backend, and its answer on the way to the client.

    waiting ──head──▶ holding ──judged──▶ passing ──end──▶ finished
       └── lost, or moved on: nothing has gone out, another backend can be asked

Everything here runs inside the event loop's callbacks, without a task switch: what the
backend's connection reads is written to the client's connection at once.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from mvllm_router.errors import AttemptsFailed, RouterError, Silence
from mvllm_router.pool import Backend
from mvllm_router.proxy import sse
from mvllm_router.proxy.answer import Framing, frame, framing_of, head_bytes, is_event_stream
from mvllm_router.proxy.connection import Connection, Head
from mvllm_router.proxy.failure import Failure
from mvllm_router.proxy.verdict import Verdict, judge

# What the last event of a whole stream holds: chat and completions, messages, responses.
_STREAM_ENDS = (b"[DONE]", b"message_stop", b"response.completed")


class Result(Enum):
    """How an attempt ended."""

    ANSWERED = "answered"  # the client has the whole answer
    MOVED = "moved"  # the backend would not; nothing has gone out
    FAILED = "failed"  # no answer came; nothing has gone out
    BROKEN = "broken"  # lost in mid-answer; the client was told


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result and its reason: one of few, for metrics, with the details in words beside it."""

    result: Result
    reason: str = ""
    failure: Failure | None = None  # when the connection was at fault
    detail: str = ""

    def describe(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


def failed(failure: Failure, detail: str = "") -> Outcome:
    """Return the outcome of an attempt that got no answer."""
    return Outcome(Result.FAILED, failure.value, failure, detail)


@dataclass(slots=True)
class Client:
    """What an answer has to fit: the client's connection and how it speaks HTTP."""

    transport: asyncio.Transport
    http_1_1: bool
    keep_alive: bool
    is_head: bool


class Exchange:
    """Receives from a connection, decides, and writes to a client. Used once."""

    __slots__ = (
        "_another",
        "_arrived",
        "_cutter",
        "_framing",
        "_held",
        "_last_pieces",
        "_own_lines",
        "_passing",
        "backend",
        "client",
        "connection",
        "done",
        "head",
        "keep_alive",
        "last_byte",
    )

    def __init__(
        self,
        client: Client,
        backend: Backend,
        own_lines: bytes,
        another: Callable[[], bool],
        arrived: float,
    ) -> None:
        """Prepare for an answer.

        Args:
            own_lines: the router's own headers for the client.
            another: tells whether another backend could be asked instead.
            arrived: when the client's request came, in monotonic seconds.
        """
        self.client = client
        self.backend = backend
        self.connection: Connection | None = None
        self.done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.head: Head | None = None
        self.keep_alive = client.keep_alive
        self.last_byte = time.monotonic()
        self._own_lines = own_lines
        self._another = another
        self._arrived = arrived
        self._held = b""
        self._passing = False
        self._framing = Framing.NONE
        self._cutter: sse.EventCutter | None = None  # set for a stream of events
        self._last_pieces = (b"", b"")

    # --- from the backend's connection

    def received(self, head: Head | None, data: bytes, ended: bool) -> None:
        before, self.last_byte = self.last_byte, time.monotonic()
        self.backend.last_byte = self.last_byte
        if self._passing:
            if self._cutter is not None:
                self.backend.stats.inter_token.observe(self.last_byte - before)
            self._pass(b"", data, ended)
        else:
            self._begin(head, self._held + data if self._held else data, ended)

    def lost(self, failure: Failure, detail: str) -> None:
        """End without a (whole) answer."""
        if self._passing:
            error = AttemptsFailed(f"{self.backend.name} was lost: {detail}")
            self._break_off(error, failure, detail)
        else:
            self._finish(failed(failure, detail))

    # --- from the relay

    def time_out(self, seconds: float) -> None:
        """End because the backend has been silent for `seconds`."""
        self._drop_connection()
        message = f"{self.backend.name} was silent for {seconds:g} s"
        if self._passing:
            self._break_off(Silence(message), Failure.SILENT, "")
        else:
            self._finish(failed(Failure.SILENT))

    def give_up_client(self) -> None:
        """End because the client has not read for too long: its connection is closed."""
        reset(self.client.transport)

    def abandon(self) -> None:
        """End because the client has left or the router stops; the backend is told."""
        self._drop_connection()

    def pause(self) -> None:
        """Stop reading from the backend until the client has caught up."""
        if self.connection is not None:
            self.connection.pause_reading()

    @property
    def waits_for_client(self) -> bool:
        """Whether nothing is read from the backend because the client does not keep up."""
        return self.connection is not None and self.connection.reading_paused

    def resume(self) -> None:
        if self.connection is not None:
            self.last_byte = time.monotonic()  # its silence was ours
            self.connection.resume_reading()

    # --- deciding

    def _begin(self, head: Head | None, data: bytes, ended: bool) -> None:
        if head is not None:
            self.head = head
        assert self.head is not None
        is_stream = is_event_stream(self.head)
        verdict, reason = judge(self.head.status, is_stream, data, ended, self._another)
        if verdict is Verdict.HOLD:
            self._held = data
        elif verdict is Verdict.MOVE:
            self._leave_connection(ended)
            self._finish(Outcome(Result.MOVED, reason))
        else:
            self._commit(self.head, data, ended, is_stream)

    def _commit(self, head: Head, data: bytes, ended: bool, is_stream: bool) -> None:
        client = self.client
        self._framing = framing_of(head, is_head=client.is_head, http_1_1=client.http_1_1)
        self.keep_alive = client.keep_alive and self._framing is not Framing.CLOSE
        if is_stream:
            self._cutter = sse.EventCutter()
            self.backend.stats.ttft.observe(self.last_byte - self._arrived)
        begin = head_bytes(
            head,
            self._framing,
            self._own_lines,
            keep_alive=self.keep_alive,
            http_1_1=client.http_1_1,
        )
        self._passing = True
        self._held = b""
        self._pass(begin, data, ended)

    # --- passing on

    def _pass(self, begin: bytes, data: bytes, ended: bool) -> None:
        if self._cutter is not None and (data or ended):
            self.backend.stats.events += 1
            data = self._cutter.cut(data)
            if ended:
                data += self._cutter.rest()
        if data:
            self._last_pieces = (self._last_pieces[1], data)
        if ended and self._ended_too_early():
            self._write(begin + frame(data, self._framing, ended=False))
            return self.lost(Failure.RESET, "the stream ended too early")
        self._write(begin + frame(data, self._framing, ended=ended))
        if ended:
            self._leave_connection(ended)
            self._finish(Outcome(Result.ANSWERED))
        return None

    def _ended_too_early(self) -> bool:
        """Tell whether a stream was cut that, in HTTP/1.0, ends with its connection."""
        if self._cutter is None or self.head is None or not self.head.http_1_0:
            return False
        tail = self.tail()
        return not any(mark in tail for mark in _STREAM_ENDS)

    def tail(self) -> bytes:
        """Return the last two pieces of the body: the usage figures stand there."""
        return b"".join(self._last_pieces)

    def _write(self, data: bytes) -> None:
        if data and not self.client.transport.is_closing():
            self.client.transport.write(data)

    # --- ending

    def _break_off(self, error: RouterError, failure: Failure, detail: str) -> None:
        """Tell the client that the rest is missing; it must never take this for the end."""
        if self._cutter is not None and self._framing is not Framing.LENGTH:
            self._write(frame(self._new_line() + error.event(), self._framing, ended=True))
        else:
            self.keep_alive = False  # a short body, or chunks without their end
        if self._cutter is None and self._framing is Framing.CLOSE:
            reset(self.client.transport)
        self._finish(Outcome(Result.BROKEN, failure.value, failure, detail))

    def _new_line(self) -> bytes:
        """Return what ends an event that was too long to be held back, if it is cut."""
        return b"" if sse.ends_event(self._last_pieces[1]) else b"\n\n"

    def _finish(self, outcome: Outcome) -> None:
        if not self.done.done():
            self.done.set_result(outcome)

    def _leave_connection(self, ended: bool) -> None:
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if ended and self.head is not None and self.head.keeps_alive:
            connection.release()
        else:
            connection.abort()

    def _drop_connection(self) -> None:
        self._leave_connection(ended=False)


def reset(transport: asyncio.Transport) -> None:
    """Close a client's connection so that it does not look like a clean end: RST, not FIN."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()
