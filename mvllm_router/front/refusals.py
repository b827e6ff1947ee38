"""Answers that need no request: to clients that come when there is no room, or are too slow."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import cast

from mvllm_router.errors import OutOfConnections
from mvllm_router.front.response import last_words

# Connections that wait for their client to take the answer and close. Each is a file.
_MOST_LINGERING = 16
# Seconds that they wait, at least; and bytes of a request that are passed over meanwhile.
_LINGER = 2.0
_PASSED_OVER = 65536
# Seconds after which a client may try again.
_RETRY_AFTER = 2


class Refusals:
    """Refuses connections without reading what they ask."""

    def __init__(self) -> None:
        self._error = OutOfConnections(
            "The router has as many connections as it may.", retry_after=_RETRY_AFTER
        )
        # When each came, in monotonic seconds; the oldest first.
        self._lingering: OrderedDict[asyncio.Transport, float] = OrderedDict()

    def protocol(self) -> asyncio.Protocol:
        """Return what refuses one connection."""
        return _Refusal(self)

    def refuse(self, transport: asyncio.Transport) -> None:
        """Answer, and let the client close: if we did, with its request unread, that would be a
        reset, which can overtake the answer.
        """
        transport.write(last_words(self._error))
        if not transport.can_write_eof():  # TLS
            return transport.close()
        transport.write_eof()
        self._lingering[transport] = time.monotonic()
        if len(self._lingering) > _MOST_LINGERING:
            self._lingering.popitem(last=False)[0].abort()
        return None

    def ended(self, transport: asyncio.Transport) -> None:
        self._lingering.pop(transport, None)

    def close_old(self, now: float) -> None:
        """Close those that have had time enough; `now` is in monotonic seconds."""
        while self._lingering:
            transport, since = next(iter(self._lingering.items()))
            if since > now - _LINGER:
                return
            del self._lingering[transport]
            transport.abort()

    def close(self) -> None:
        """Close all."""
        while self._lingering:
            self._lingering.popitem()[0].abort()


class _Refusal(asyncio.Protocol):
    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals
        self._passed_over = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._refusals.refuse(self._transport)

    def data_received(self, data: bytes) -> None:
        self._passed_over += len(data)
        if self._passed_over > _PASSED_OVER:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._refusals.ended(self._transport)
