"""The bytes of one exchange: whole answers, streams, and all the ways to break off."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import replace
from typing import NoReturn

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from mvllm_router.sim.dialects.base import Dialect, Page

_GARBAGE = b"\x16\x03\x01 this is not HTTP \x00\xff\xfe\r\n\r\n"


class Sent(web.StreamResponse):
    """What aiohttp gets back from a handler: the answer has gone out already.

    The heads are written here and not by aiohttp, because names, order, case and HTTP
    version differ between the servers that are imitated.
    """

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._keep = keep_alive

    @property
    def keep_alive(self) -> bool:
        """Whether the connection takes another request."""
        return self._keep

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Nothing is left to write."""
        return None

    async def write_eof(self, data: bytes | bytearray | memoryview = b"") -> None:
        """Nothing is left to write."""


class Wire:
    """One request's way out. Raises ConnectionError where the client has gone."""

    def __init__(self, request: web.BaseRequest, dialect: Dialect, *, last: bool) -> None:
        self._request = request
        self._dialect = dialect
        self.keep = request.keep_alive and not last and dialect.version == "HTTP/1.1"
        self.begun = False  # the head of a stream is out
        self.broken = False  # this side has cut the connection

    def send(self, page: Page) -> None:
        """A whole answer in one write."""
        head = self._head(page, len(page.body))
        self._write(head if self._request.method == "HEAD" else head + page.body)

    def send_half(self, page: Page) -> None:
        """An answer that ends in mid-body."""
        self._write(self._head(page, len(page.body)) + page.body[: len(page.body) // 2])

    def begin(self, page: Page) -> None:
        """The head of a stream."""
        self.begun = True
        self._write(self._head(page, None))
        if self._dialect.version == "HTTP/1.1":
            self._request.writer.enable_chunking()

    async def event(self, text: str) -> None:
        """A part of a stream; waits while the client reads too slowly."""
        await self._request.writer.write(text.encode())

    async def end(self, *, clean: bool = True) -> None:
        """The end of a stream; one that is not clean lacks the last chunk and closes."""
        if clean:
            await self._request.writer.write_eof()
        else:
            self.keep = False
            self._transport().close()

    def go_on(self) -> None:
        """Tell a client that asks first to send its body."""
        self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _head(self, page: Page, length: int | None) -> bytes:
        page = self._dialect.dress(page, self._request.headers)
        told = self.keep and not page.close
        self.keep = told and not page.drop
        return self._dialect.head(page if told else replace(page, close=True), length)

    def _write(self, data: bytes) -> None:
        self._transport().write(data)

    def _transport(self) -> asyncio.Transport:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        return transport

    # Breaking off: each ends with the cancellation of the handler when the connection is gone.

    async def cut(self) -> NoReturn:
        """Close the connection in mid-answer."""
        self.broken = True
        self._transport().close()
        await never()

    async def garbage(self) -> NoReturn:
        """Answer with bytes that no HTTP client understands."""
        self._write(_GARBAGE)
        await self.cut()

    async def reset(self) -> NoReturn:
        """Close with a TCP reset."""
        self.broken = True
        transport = self._transport()
        sock = transport.get_extra_info("socket")
        # With a linger time of zero the kernel sends RST instead of FIN.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await never()


async def never() -> NoReturn:
    """Wait until cancelled."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody resolves this future")
