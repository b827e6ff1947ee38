"""What a client may send before its connection is ended: aiohttp bounds the parts, this the whole.

Each read is counted as a part of a head or of a body. A timer for each connection would cost more
than all of this: `Front` looks at all of them once in a while.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from mvllm_router.errors import BadRequest, HeadTooLarge, RouterError, SlowUpload
from mvllm_router.proxy.refusals import raw_answer

# Of the head of a request: bytes of its first line, of one header and of all, and headers.
LONGEST_LINE = 16384
LONGEST_FIELD = 32768
_LONGEST_HEAD = 65536
MOST_HEADERS = 128
# Requests that may be sent ahead of their answers. Newer releases of aiohttp stop reading at 32,
# older ones never.
_MOST_AHEAD = 1024
# Chunks of one byte take five more each; what is much more than that is no framing of a body.
# The margin, in bytes, is above what may be read and not be parsed yet.
_FRAMING_PER_BYTE = 16
_FRAMING = 1024 * 1024


class Incoming(web.RequestHandler):
    """Reads what a client sends, for as long as it is in proportion."""

    __slots__ = ("_body", "_body_bytes", "_head_bytes", "_head_since", "_reads_much", "busy")

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.busy = False  # a request of this client is being answered
        self._body: StreamReader = EMPTY_PAYLOAD  # of the last request whose head is here
        self._body_bytes = 0  # read for it, with what frames it
        self._head_bytes = 0  # of a head that is not whole yet
        self._reads_much = False  # what was read with a head was more than a head may have
        # Monotonic seconds: since when a head is awaited. None: since the next look, if at all.
        self._head_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._head_since = time.monotonic()

    def data_received(self, data: bytes) -> None:
        in_body = not self._body.is_eof()
        requests = self._request_count
        try:
            super().data_received(data)
        except ValueError as error:  # from older releases of aiohttp, for an impossible address
            return self.refuse(BadRequest(f"Bad HTTP request: {error}"))
        if self._request_count != requests:
            self._heads_came(in_body, len(data))
        elif in_body:
            self._body_bytes += len(data)
            if self._body_bytes > _FRAMING + _FRAMING_PER_BYTE * self._body.total_bytes:
                self._fail_body("there is more framing than body")
        else:
            self._head_bytes += len(data)
            if self._head_bytes > _LONGEST_HEAD:
                self.refuse(_too_long())
        return None

    def _heads_came(self, in_body: bool, size: int) -> None:
        """Note that heads are whole, or that aiohttp could not read on: it queues that as well."""
        if self._head_bytes + size > _LONGEST_HEAD:
            self._reads_much = True
        self._head_bytes = 0
        self._head_since = None
        if in_body and not self._body.is_eof():
            error: Any = self._messages.pop()[0]
            self._fail_body(error.message)
            return
        self._body = self._messages[-1][1]
        self._body_bytes = 0
        if len(self._messages) > _MOST_AHEAD and self.transport is not None:
            self.transport.abort()

    def _fail_body(self, why: str) -> None:
        """Let the request whose body it is fail at once, and not when its patience ends.

        Nothing that follows can be read; the connection ends with the answer to that request.
        """
        body, self._body = self._body, EMPTY_PAYLOAD
        body.set_exception(BadRequest(f"Bad HTTP request: {why}"))
        body.feed_eof()  # else aiohttp would wait for the rest of it
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def fault_of(self, request: web.BaseRequest) -> HeadTooLarge | None:
        """Return what is wrong with a head that came as a whole, if anything is."""
        fields = request.raw_headers
        if len(fields) > MOST_HEADERS:  # older releases of aiohttp take any number
            return HeadTooLarge(f"There are more than {MOST_HEADERS} headers.")
        if self._reads_much and sum(len(k) + len(v) for k, v in fields) > _LONGEST_HEAD:
            return _too_long()
        return None

    def is_late(self, now: float, timeout: float) -> bool:
        """Tell whether a head has been awaited for more than `timeout` seconds.

        That is from the connection's begin on, and later from the look after its first byte:
        between two requests a client may idle. Also late is what nobody reads any more: older
        releases of aiohttp can stumble over a request before they hand it on.
        """
        if self._task_handler is not None and self._task_handler.done():
            return True
        if self.busy or (self._head_since is None and not self._head_bytes):
            return False
        if self._head_since is None:
            self._head_since = now
        return now - self._head_since > timeout

    def refuse_late_head(self, timeout: float) -> None:
        """Close a connection that `is_late`; one that has said nothing is not owed an answer."""
        if self._head_bytes:
            self.refuse(SlowUpload(f"The head of the request took longer than {timeout:g} s."))
        else:
            self.force_close()

    def refuse(self, error: RouterError) -> None:
        """End the connection, with an answer if its client does not wait for another one."""
        if self.transport is not None and not self.busy:
            self.transport.write(raw_answer(error))
        self.force_close()


def _too_long() -> HeadTooLarge:
    return HeadTooLarge(f"The head is longer than {_LONGEST_HEAD} bytes.")
