"""A client's connection: one request of it is answered at a time, in the order of arrival.

    reading ──whole──▶ ahead ──its turn──▶ answered ──▶ ended
       └── refused before it is whole: answered, and the connection ends with that

Invariants: each request that was `opened` at the handler is `ended` there, once, however it
goes. Reading stops while more than `_MOST_AHEAD` bytes wait behind the request that is answered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol, cast

from mvllm_router.errors import HeadTooLarge, RouterError, SlowUpload
from mvllm_router.front.forwarded import forwarded_for
from mvllm_router.front.outlet import Outlet
from mvllm_router.front.reader import Reader
from mvllm_router.front.request import Request
from mvllm_router.front.response import Response, encoded, error_response, last_words
from mvllm_router.front.steps import Steps
from mvllm_router.front.upload import Upload

if TYPE_CHECKING:
    from mvllm_router.front.front import Front

log = logging.getLogger(__name__)

# Requests and bytes of their bodies that may be sent ahead of their turn.
_MOST_REQUESTS_AHEAD = 1024
_MOST_AHEAD = 65536
# Seconds that a client's connection may idle between two requests.
KEEP_ALIVE = 75.0
# Seconds in which a client that was refused in mid-request may take the answer and close. If we
# closed, with its request unread, that would be a reset, which can overtake the answer.
LINGER = 10.0


class Feeder(Protocol):
    """What writes an answer to a client as a server sends it."""

    def pause(self) -> None:
        """Stop: the client does not keep up."""

    def resume(self) -> None:
        """Go on."""


class ClientConnection(asyncio.Protocol):
    """Reads requests, has them answered, and ends when its time has come."""

    __slots__ = (
        "_ahead",
        "_broken",
        "_feeder",
        "_front",
        "_head_since",
        "_idle_since",
        "_in_next",
        "_invited",
        "_lingers_since",
        "_reader",
        "_reading_paused",
        "_request",
        "_steps",
        "_upload",
        "outlet",
        "peer",
        "stuck_since",
        "writing_paused",
    )

    def __init__(self, front: Front) -> None:
        self._front = front
        self._reader = Reader(self, front.bodies)
        self.outlet: Outlet | None = None  # None: not connected
        self.peer = ""  # the address at the other end
        self._ahead: deque[Request] = deque()  # whole, or refused
        self._request: Request | None = None  # the one that is being answered
        self._steps: Steps | None = None  # that answer it
        self._broken: RouterError | None = None  # what follows is no request: the last answer
        self._feeder: Feeder | None = None
        self._upload = Upload()  # of the request whose body is being read
        self._in_next = False  # what is next is being begun
        self._invited = False  # the client was told to send the body of what is being read
        self._reading_paused = False
        self.writing_paused = False
        # All in monotonic seconds:
        self.stuck_since: float | None = None  # unsent bytes wait since then
        # Since when a head is awaited. None: since the next look, if at all.
        self._head_since: float | None = time.monotonic()
        self._idle_since = 0.0  # nothing is asked
        self._lingers_since: float | None = None  # the last answer is out, the client may close

    # --- what the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport has no such base class.
        self.outlet = Outlet(cast(asyncio.Transport, transport), self._front.outbox)
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]).removeprefix("::ffff:") if name else ""
        self._front.joined(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self.outlet is not None:
            self.outlet.transport.close()  # else Python 3.10 warns of a forgotten TLS connection
        self.outlet = None
        self._front.left(self)
        self._forget_what_waits()
        self._reader.close()
        if self._request is not None and self._steps is not None:
            self._steps.cancel()

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if reader.deaf:
            return
        error = reader.feed(data)
        if error is not None:
            self._break(error)
        elif reader.current is not None:
            self._in_upload(reader.current)
        if self._request is None:
            if self._ahead or self._broken:
                self._next()
        elif self._ahead or reader.current is not None:
            self._bound_what_waits()

    def _bound_what_waits(self) -> None:
        """See that a client does not send too much ahead of the turn that it has."""
        waiting = [*self._ahead, *filter(None, (self._reader.current,))]
        if len(waiting) > _MOST_REQUESTS_AHEAD:
            self.abort()
        elif sum(request.size for request in waiting) > _MOST_AHEAD:
            self._pause_reading()

    def pause_writing(self) -> None:
        self.writing_paused = True
        self.stuck_since = time.monotonic()
        if self._feeder is not None:
            self._feeder.pause()

    def resume_writing(self) -> None:
        self.writing_paused = False
        self.stuck_since = None
        if self._feeder is not None:
            self._feeder.resume()

    # --- what the reader finds

    def opened(self, request: Request) -> None:
        self._head_since = None
        self._invited = False
        self._upload.begin(request.arrived)
        self._front.opened(request)

    def complete(self, request: Request) -> None:
        self._ahead.append(request)

    def _in_upload(self, request: Request) -> None:
        """Look at a request whose body is not whole yet."""
        self._upload.last_read = time.monotonic()
        if self._request is not None or self._ahead:
            return  # it is ahead of its turn
        if request.error is not None:
            self._refuse_upload(request)
        elif not self._invited:
            self._invite(request)

    def _invite(self, request: Request) -> None:
        """Tell a client that waits for it to send its body."""
        self._invited = True
        waits = request.fields.get("expect", "").lower() == "100-continue"
        if waits and request.http_1_1 and request.size == 0 and self.outlet is not None:
            self.outlet.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse_upload(self, request: Request) -> None:
        """Answer a request whose body need not come any more; the connection ends with it."""
        self._reader.deaf = True
        self._reader.current = None
        request.keep_alive = False
        self._ahead.append(request)
        self._next()

    def _break(self, error: RouterError) -> None:
        """End, with `error` in its turn: what the client sent is no request."""
        if self._request is not None and isinstance(error, HeadTooLarge):
            self.abort()  # it cannot be told: it waits for another answer first
        else:
            self._broken = error

    def _pause_reading(self) -> None:
        if not self._reading_paused and self.outlet is not None:
            self._reading_paused = True
            self.outlet.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and self.outlet is not None:
            self._reading_paused = False
            self.outlet.transport.resume_reading()

    # --- answering

    @property
    def busy(self) -> bool:
        """Whether something is answered, or asked and not answered yet."""
        return bool(self._request or self._ahead or self._reader.current or self._broken)

    def _next(self) -> None:
        """Answer what is next, until something has to be waited for.

        A loop, since what is answered at once comes here again from the end of its own answer.
        """
        if self._in_next:
            return
        self._in_next = True
        while self._request is None and self._ahead and self.outlet is not None:
            self._request = request = self._ahead.popleft()
            if self._front.draining:
                request.keep_alive = False
            self._steps = Steps(self._answer(request))
            self._steps.start()
        self._in_next = False
        if self._request is not None or self.outlet is None or self.outlet.is_closing():
            return
        if self._broken is not None:
            self._say_last(self._broken)
        elif self._lingers_since is None:
            self._idle()

    def _idle(self) -> None:
        """Nothing is to be answered; a body may be on its way."""
        self._idle_since = now = time.monotonic()
        if self._reading_paused:
            self._resume_reading()
        request = self._reader.current
        if request is None:
            if self._front.draining:
                self.close()
        elif request.error is not None:
            self._refuse_upload(request)
        else:
            self._upload.begin(now)
            if not self._invited:
                self._invite(request)

    async def _answer(self, request: Request) -> None:
        left = True
        try:
            response = request.prepared or await self._front.handler.answer(request)
            if response is not None:
                self._write(request, response)
            left = False
        except Exception:
            self._write(request, error_response(failed_inside()))
            request.keep_alive = False
            left = False
        finally:
            self._end(request, client_left=left)
            self._request = None
        if request.keep_alive and not self._front.draining:
            self._next()
            return
        self._forget_what_waits()
        if request.error is None:
            self.close()
        else:  # more may be coming than what was read
            self._linger()

    def _forget_what_waits(self) -> None:
        """Give back the requests that will not be answered any more."""
        unfinished = [*self._ahead, *filter(None, (self._reader.current,))]
        self._ahead.clear()
        self._reader.current = None
        self._reader.deaf = True
        for request in unfinished:
            self._end(request, client_left=True)

    def _write(self, request: Request, response: Response) -> None:
        if request.permit is not None:
            response.headers.update(request.permit.headers)
        data = encoded(
            response,
            keep_alive=request.keep_alive,
            http_1_1=request.http_1_1,
            is_head=request.method == "HEAD",
        )
        if self.outlet is not None:
            self.outlet.write(data)

    def _end(self, request: Request, *, client_left: bool) -> None:
        """Give back what `request` took; it is called once for each."""
        request.release()
        if request.prepared is None:
            self._front.handler.ended(request, client_left=client_left)
        if request.error is not None:
            request.error.__traceback__ = None  # it knows the request: a cycle

    # --- what feeds the client

    def attach(self, feeder: Feeder) -> None:
        """Let `feeder` write to this client until `detach`."""
        self._feeder = feeder
        if self.writing_paused:
            feeder.pause()

    def detach(self) -> None:
        self._feeder = None

    # --- whom it comes from

    @property
    def trusted_proxy(self) -> str | None:
        """The address at the other end, if that is a proxy which is believed."""
        proxies = self._front.proxies
        return self.peer if proxies is not None and proxies.trusts(self.peer) else None

    def client_address(self, request: Request) -> str:
        """Return where the request comes from, as far as proxies in front are believed."""
        proxies = self._front.proxies
        if proxies is None:
            return self.peer
        return proxies.client(self.peer, forwarded_for(request.fields.raw).decode("latin-1"))

    # --- ending

    def look(self, now: float, patience: float, header_timeout: float) -> None:
        """End what takes too long.

        Args:
            now: monotonic seconds.
            patience: seconds in which nothing of an answer was read, or of a body came.
            header_timeout: seconds that a head may take: from the connection's begin on, and
                later from the look after its first byte, since a client may idle in between.
        """
        if self.stuck_since is not None and now - self.stuck_since > patience:
            self.abort()
        elif self._lingers_since is not None:
            if now - self._lingers_since > LINGER:
                self.abort()
        elif self._request is None and not self._ahead:
            self._look_at_reading(now, patience, header_timeout)

    def _look_at_reading(self, now: float, patience: float, header_timeout: float) -> None:
        request = self._reader.current
        if request is not None:
            error = self._upload.fault(request.size, now, patience)
            if error is not None:
                request.error = error
                self._refuse_upload(request)
        elif self._reader.head_bytes or self._head_since is not None:
            self._look_at_head(now, header_timeout)
        elif now - self._idle_since > KEEP_ALIVE:
            self.close()

    def _look_at_head(self, now: float, timeout: float) -> None:
        if self._head_since is None:
            self._head_since = now
        if now - self._head_since <= timeout:
            return
        if self._reader.head_bytes:
            self._say_last(SlowUpload(f"The head of the request took longer than {timeout:g} s."))
        else:
            self.close()  # it has said nothing, and is not owed an answer

    def _say_last(self, error: RouterError) -> None:
        """Answer what was not read as a request."""
        self._broken = None
        if self.outlet is not None:
            self.outlet.write(last_words(error))
            self._linger()

    def _linger(self) -> None:
        """The last answer is out and the client may still be sending."""
        self._reader.deaf = True
        outlet = self.outlet
        if outlet is None or outlet.is_closing():
            return
        self._lingers_since = time.monotonic()
        self._resume_reading()
        outlet.finish()

    def close(self) -> None:
        """End after what is written has gone out."""
        if self.outlet is not None:
            self.outlet.close()

    def abort(self) -> None:
        """End at once."""
        if self.outlet is not None:
            self.outlet.abort()


def failed_inside() -> RouterError:
    """Return what the client gets to know of the exception that is handled."""
    log.exception("a request failed inside the router")
    return RouterError("Internal error of the router; its log has the details.")
