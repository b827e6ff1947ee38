"""One attempt: a request on one backend, and its answer on the way to the client.

    waiting ──head──▶ holding ──judged──▶ passing ──end──▶ finished
       └── lost, or moved on: nothing has gone out, another backend can be asked

Everything here runs inside the event loop's callbacks, without a task switch: what the
backend's connection reads is written to the client's connection at once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from mvllm_router.errors import AttemptsFailed, RouterError, Silence
from mvllm_router.front.steps import Signal
from mvllm_router.pool import Backend
from mvllm_router.proxy import hidden, sse
from mvllm_router.proxy.answer import retry_after
from mvllm_router.proxy.attempts import Trouble
from mvllm_router.proxy.client import Client
from mvllm_router.proxy.connection import Connection, Head
from mvllm_router.proxy.failure import Failure
from mvllm_router.proxy.verdict import Verdict, how_it_ended, judge

# The server lacks the route, not the strength: that tells nothing against it.
NOT_IMPLEMENTED = 501
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
    """The result and its reason: one of few, for metrics, with the details in words beside it.

    `failure` is set when the connection was at fault, `trouble` when the answer was.
    """

    result: Result
    reason: str = ""
    failure: Failure | None = None
    detail: str = ""
    trouble: Trouble | None = None

    def describe(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


ANSWERED = Outcome(Result.ANSWERED)


def failed(failure: Failure, detail: str = "") -> Outcome:
    """Return the outcome of an attempt that got no answer."""
    return Outcome(Result.FAILED, failure.value, failure, detail)


class Request(Protocol):
    """What an exchange asks of the request that it serves."""

    def may_move(self, trouble: Trouble, asked: float | None) -> bool:
        """Tell whether another attempt will be made; `asked` is the server's retry-after."""

    def commit(self, *, good: bool, is_stream: bool) -> None:
        """Learn that an answer begins to go out, a good one or not: no other attempt follows."""


class Exchange(Signal[Outcome]):
    """Receives from a connection, decides, and writes to a client. Used once.

    It is the signal of its own end.
    """

    __slots__ = (
        "_arrived",
        "_cutter",
        "_end_is_marked",
        "_held",
        "_hide_errors",
        "_own_lines",
        "_request",
        "_searched",
        "_trouble",
        "_unsent",
        "backend",
        "client",
        "connection",
        "events",
        "head",
        "last_byte",
        "passing",
        "ttft",
    )

    def __init__(
        self,
        client: Client,
        backend: Backend,
        own_lines: bytes,
        request: Request,
        *,
        arrived: float,
        end_is_marked: bool,
        hide_errors: bool,
    ) -> None:
        """Prepare for an answer.

        Args:
            own_lines: the router's own headers for the client.
            request: decides whether there is another attempt.
            arrived: when the client's request came, in monotonic seconds.
            end_is_marked: the last event of a whole stream is known, as of chats.
            hide_errors: the client is not told what a server says when it fails.
        """
        super().__init__()
        self.client = client
        self.backend = backend
        self.connection: Connection | None = None
        self.head: Head | None = None
        self.last_byte = time.monotonic()
        self.passing = False  # something of the answer has gone out
        self.events = 0  # reads of a stream
        self.ttft: float | None = None  # of a stream: seconds until it began to go out
        self._own_lines = own_lines
        self._request = request
        self._hide_errors = hide_errors
        self._trouble: tuple[Trouble | None, str] = (None, "")  # of an answer passed on
        self._unsent = 0  # bytes of the request that the backend had not taken at the last look
        self._arrived = arrived
        self._end_is_marked = end_is_marked
        self._held = bytearray()  # of an answer that is not judged yet
        self._searched = 0  # bytes of it in which no event ends
        self._cutter: sse.EventCutter | None = None  # set for a stream of events

    # --- from the backend's connection

    def received(self, head: Head | None, data: bytes, ended: bool) -> None:
        before, self.last_byte = self.last_byte, time.monotonic()
        self.backend.last_byte = self.last_byte
        if self.passing:
            if self._cutter is not None:
                self.backend.stats.inter_token.observe(self.last_byte - before)
            return self._pass(b"", data, ended)
        self.head = head or self.head
        assert self.head is not None  # a connection hands the head on first
        if self._held:
            self._held += data
        return self._begin(self.head, self._held or data, ended)

    def lost(self, failure: Failure, detail: str) -> None:
        """End without a (whole) answer."""
        if self.passing:
            error = AttemptsFailed(f"The server was lost: {failure.value}")
            self._break_off(error, failure, detail)
        else:
            self.fire(failed(failure, detail))

    # --- from the relay

    def time_out(self, seconds: float) -> None:
        """End because the backend has been silent for `seconds`."""
        self._leave_connection(ended=False)
        if self.passing:
            error = Silence(f"The server was silent for {seconds:g} s")
            self._break_off(error, Failure.SILENT, "")
        else:
            self.fire(failed(Failure.SILENT, f"{seconds:g} s"))

    def stop(self, error: RouterError) -> None:
        """End because the router stops: the client is told, in whatever way is left."""
        self._leave_connection(ended=False)
        if self.passing:
            self.client.break_off(error)
            self.fire(Outcome(Result.BROKEN, "the router stopped"))  # not the backend's fault
        else:
            self.fail(error)

    def abandon(self) -> None:
        """End because the client has left; the backend is told. Harmless after the end."""
        self._leave_connection(ended=False)

    def pause(self) -> None:
        """Stop reading from the backend until the client has caught up."""
        if self.connection is not None:
            self.connection.pause_reading()

    def resume(self) -> None:
        if self.connection is not None:
            self.last_byte = time.monotonic()  # its silence was ours
            self.connection.resume_reading()

    @property
    def waits_for_client(self) -> bool:
        """Whether nothing is read from the backend because the client does not keep up."""
        return self.connection is not None and self.connection.reading_paused

    def look_at_upload(self) -> None:
        """Take it for a sign of life if the backend has taken more of the request meanwhile."""
        unsent = self.connection.unsent if self.connection is not None else 0
        if unsent != self._unsent:
            self._unsent = unsent
            self.last_byte = time.monotonic()

    # --- deciding and passing on

    def _begin(self, head: Head, data: bytes | bytearray, ended: bool) -> None:
        is_stream = head.is_event_stream
        verdict, trouble, reason = judge(
            head.status, is_stream, data, ended, self._may_move, searched=self._searched
        )
        if verdict is Verdict.HOLD:
            self._held = bytearray(data) if data is not self._held else self._held
            self._searched = len(data)
        elif verdict is Verdict.MOVE:
            self._leave_connection(ended)
            self.fire(Outcome(Result.MOVED, reason, trouble=trouble))
        else:
            self._trouble = trouble, reason
            self._commit(head, bytes(data), ended, is_stream)

    def _may_move(self, trouble: Trouble) -> bool:
        return self._request.may_move(trouble, self.asked_to_wait)

    @property
    def asked_to_wait(self) -> float | None:
        """Seconds for which the backend wants to be left alone, if its answer says so."""
        return retry_after(self.head) if self.head is not None else None

    def _commit(self, head: Head, data: bytes, ended: bool, is_stream: bool) -> None:
        """Begin to pass the answer on; from here there is no way back."""
        status = head.status
        good = self._trouble[0] is None and (status < 500 or status == NOT_IMPLEMENTED)
        self._request.commit(good=good, is_stream=is_stream)
        self.passing = True
        self._held.clear()
        if self._hide_errors and head.status >= 500:
            self._leave_connection(ended)
            head, data, ended, is_stream = *hidden.answer(head), True, False
        elif self._hide_errors and is_stream:
            head = hidden.stream(head)
        if is_stream:
            self._cutter = sse.EventCutter()
            self.ttft = ttft = self.last_byte - self._arrived
            self.backend.stats.ttft.observe(ttft)
        begin = self.client.begin(head, self._own_lines, is_stream=is_stream)
        self._pass(begin, data, ended)

    def _pass(self, begin: bytes, data: bytes, ended: bool) -> None:
        if self._cutter is not None and (data or ended):
            self.events += 1
            self.backend.stats.events += 1
            data = self._cutter.cut(data)
            if ended:
                data += self._cutter.rest()
            if self._hide_errors:
                data = hidden.events(data)
        if ended and self._cutter is not None and self._ends_too_early(data):
            self.client.write(begin, data, ended=False)
            self._leave_connection(ended)
            return self.lost(Failure.RESET, "the stream ended too early")
        self.client.write(begin, data, ended=ended)
        if ended:
            self._leave_connection(ended)
            trouble, reason = self._trouble
            if self._cutter is not None and trouble is None:
                trouble, reason = how_it_ended(self.client.tail())
            self.fire(Outcome(Result.ANSWERED, reason, trouble=trouble) if trouble else ANSWERED)
        return None

    def _ends_too_early(self, last: bytes) -> bool:
        """Tell whether a stream was cut whose end is only that of its connection."""
        assert self.head is not None
        if not self.head.until_close or not self._end_is_marked:
            return False
        tail = self.client.tail() + last
        return not any(mark in tail for mark in _STREAM_ENDS)

    # --- ending

    def _break_off(self, error: RouterError, failure: Failure, detail: str) -> None:
        self.client.break_off(error)
        self.fire(Outcome(Result.BROKEN, failure.value, failure, detail))

    def _leave_connection(self, ended: bool) -> None:
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if ended and self.head is not None and self.head.keeps_alive:
            connection.release()
        else:
            connection.abort()
