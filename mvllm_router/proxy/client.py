"""The client's end of an answer: its head, its framing, and what is said when it breaks off."""

from __future__ import annotations

import socket
import struct
import sys

from mvllm_router.errors import RouterError
from mvllm_router.front.outlet import Outlet
from mvllm_router.proxy import sse
from mvllm_router.proxy.answer import Framing, frame, framing_of, head_bytes
from mvllm_router.proxy.connection import Head


class Client:
    """Writes one answer to a client's connection, in the client's version of HTTP."""

    __slots__ = (
        "_framing",
        "_is_stream",
        "_last_pieces",
        "begun",
        "http_1_1",
        "is_head",
        "keep_alive",
        "outlet",
    )

    def __init__(self, outlet: Outlet, *, http_1_1: bool, keep_alive: bool, is_head: bool) -> None:
        """`keep_alive`: the connection may stay open; `is_head`: no body may be written."""
        self.outlet = outlet
        self.http_1_1 = http_1_1
        self.keep_alive = keep_alive
        self.is_head = is_head
        self.begun = False  # something of the answer has gone out
        self._framing = Framing.NONE
        self._is_stream = False
        self._last_pieces = (b"", b"")

    def begin(self, head: Head, own_lines: bytes, *, is_stream: bool) -> bytes:
        """Settle how the body will be framed and return the head to write before it."""
        self.begun = True
        self._framing = framing_of(head, is_head=self.is_head, http_1_1=self.http_1_1)
        self._is_stream = is_stream and self._framing is not Framing.NONE
        self.keep_alive = self.keep_alive and self._framing is not Framing.CLOSE
        return head_bytes(
            head, self._framing, own_lines, keep_alive=self.keep_alive, http_1_1=self.http_1_1
        )

    def write(self, begin: bytes, data: bytes, *, ended: bool) -> None:
        """Write the head (once, else b""), a piece of the body, and its end if it is that."""
        if data:
            self._last_pieces = (self._last_pieces[1], data)
        if self._framing is not Framing.LENGTH:
            data = frame(data, self._framing, ended=ended)
        if begin:
            data = begin + data
        if not self._is_stream:
            self._send(data)
        elif data:
            self.outlet.send(data)

    def tail(self) -> bytes:
        """Return the last two pieces of the body: the usage figures stand there."""
        return b"".join(self._last_pieces)

    def break_off(self, error: RouterError) -> None:
        """Tell that the rest is missing; it must never be taken for the end.

        A stream of events gets an error event. Any other answer stays short of its length, or
        without its last chunk; where only the connection's end marks the body's, that is a
        reset.
        """
        if self._is_stream and self._framing is not Framing.LENGTH:
            cut = b"" if sse.ends_event(self._last_pieces[1]) else b"\n\n"
            self._send(frame(cut + error.event(), self._framing, ended=True))
            return
        self.keep_alive = False
        if self._framing is Framing.CLOSE:
            reset(self.outlet)

    def _send(self, data: bytes) -> None:
        if data and not self.outlet.is_closing():
            self.outlet.write(data)


def reset(outlet: Outlet) -> None:
    """Close a client's connection so that it does not look like a clean end: RST, not FIN."""
    if outlet.is_closing():
        return
    outlet.flush()
    sock = outlet.transport.get_extra_info("socket")
    if sock is not None:
        linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    outlet.abort()
