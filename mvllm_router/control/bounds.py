"""What a server may make of its answer to a question before the router stops listening.

The time of a question is bounded, and the length of a body. A hostile server could still fill
that time with interim answers, header lines or chunks of one byte, each of which costs the
event loop, and so every stream, a few microseconds.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

# Bytes; engines send heads of less than 1 KB.
_LONGEST_HEAD = 65536
# Before an answer, 100 to 199. No engine sends any.
_MOST_INTERIM = 16
# Bytes that are parsed at once before the head is there: then a flood is noticed early in it.
_PIECE = 4096


class BoundedConnection(ResponseHandler):
    """aiohttp's connection to a server, which closes when an answer is out of all proportion."""

    def __init__(self, loop: asyncio.AbstractEventLoop, longest: int) -> None:
        """`longest`: bytes of one answer, with its head and the framing of its body."""
        super().__init__(loop)
        self._longest = longest
        self._bytes = 0  # of this answer
        self._interim = 0
        self._begun = False  # the head of the answer itself is here

    def set_response_params(self, **params: Any) -> None:
        """Expect the answer to another request."""
        self._bytes = self._interim = 0
        self._begun = False
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        while data and not self._begun and self.transport is not None:
            piece, data = data[:_PIECE], data[_PIECE:]
            super().data_received(piece)
        if self._bytes > (self._longest if self._begun else _LONGEST_HEAD):
            self._give_up("it is too long, or its head is")
        elif data and self.transport is not None:
            super().data_received(data)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take the head of an answer, or of an interim one, from the parser."""
        self._begun = data[0].code >= 200
        self._interim += not self._begun
        if self._interim > _MOST_INTERIM:
            self._give_up(f"it sent more than {_MOST_INTERIM} interim answers")
        else:
            super().feed_data(data, size)

    def close(self) -> None:
        """Close at once: over TLS a polite end waits for the server, and nothing is left to say."""
        if self.transport is not None:
            self.transport.abort()
        super().close()

    def connection_lost(self, exc: BaseException | None) -> None:
        transport = self.transport
        super().connection_lost(exc)
        if transport is not None:
            transport.close()  # else Python 3.10 warns of a forgotten TLS connection

    def _give_up(self, why: str) -> None:
        error = aiohttp.ClientPayloadError(why)
        if self._begun and self._payload is not None:
            self._payload.set_exception(error)
        else:
            self.set_exception(error)
        if self.transport is not None:
            self.transport.abort()


def bounded(connector: aiohttp.TCPConnector, longest: int) -> aiohttp.TCPConnector:
    """Let `connector` open `BoundedConnection`s; aiohttp has no public way to say that."""
    factory: Any = partial(BoundedConnection, asyncio.get_running_loop(), longest)
    connector._factory = factory
    return connector
