"""Writing, collected: what is written in one round of the event loop goes out at its end.

Each write to a socket may wake the process at its other end, which costs more than the write.
All of a round together wake each process once, and the code that reads and decides is not
displaced from the CPU's caches in between. Where little is going on, a round is short.

The events of streams are sent at once: they come one by one, and people watch them come.

As long as a socket takes all there is, it is written to here and not by its transport: uvloop's
would write only after all that came in the same round was read, and be late with the first.
"""

from __future__ import annotations

import asyncio
import os
import sys

# Bytes. From here on it is not worth while to collect, nor to copy.
_LARGE = 65536


class Outbox:
    """The outlets that have something to send. It belongs to one event loop."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[Outlet] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # asked for once: that takes a while

    def add(self, outlet: Outlet) -> None:
        if not self._waiting:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self.flush)
        self._waiting.append(outlet)

    def flush(self) -> None:
        """Send what all of them have."""
        waiting, self._waiting = self._waiting, []
        for outlet in waiting:
            outlet.flush()


class Outlet:
    """The writing end of one connection. All that is written to it goes through here."""

    __slots__ = ("_file", "_outbox", "_pieces", "transport")

    def __init__(self, transport: asyncio.Transport, outbox: Outbox) -> None:
        self.transport = transport
        self._outbox = outbox
        self._file = _plain_socket(transport)  # its descriptor
        self._pieces: list[bytes] = []  # those that have not been sent, in order

    def write(self, data: bytes) -> None:
        """Send `data` with all that this round of the loop has to send."""
        pieces = self._pieces
        if not pieces:
            self._outbox.add(self)
        pieces.append(data)
        if len(data) > _LARGE:
            self.flush()

    def send(self, data: bytes) -> None:
        """Send `data` now, behind what was written."""
        if self._pieces:
            self._pieces.append(data)
            self.flush()
        elif not self.transport.is_closing():
            self._put(data)

    def flush(self) -> None:
        """Send now what was written."""
        pieces = self._pieces
        if not pieces:
            return
        waiting, self._pieces = pieces, []
        if self.transport.is_closing():
            return
        if sum(map(len, waiting)) > _LARGE:
            for piece in waiting:
                self.transport.write(piece)
        else:
            self._put(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    def _put(self, data: bytes) -> None:
        """Send now; what the socket does not take is left to the transport, which is open."""
        if self._file is not None and not self.transport.get_write_buffer_size():
            try:
                sent = os.write(self._file, data)
            except OSError:  # it takes nothing now, or never: the transport finds out which
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        self.transport.write(data)

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    @property
    def unsent(self) -> int:
        """Bytes that the other side has not taken yet."""
        size = self.transport.get_write_buffer_size()
        return size + sum(map(len, self._pieces)) if self._pieces else size

    def close(self) -> None:
        """End the connection after all that was written."""
        self.flush()
        self.transport.close()

    def finish(self) -> None:
        """Tell the other side that nothing more comes, where that can be told (not over TLS)."""
        self.flush()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def abort(self) -> None:
        """End the connection at once; what was not sent is lost."""
        self._pieces.clear()
        self.transport.abort()


def _plain_socket(transport: asyncio.Transport) -> int | None:
    """Return the descriptor of the socket, if it takes what is written as it is."""
    sock = transport.get_extra_info("socket")
    if sock is None or sys.platform == "win32" or transport.get_extra_info("sslcontext"):
        return None
    return int(sock.fileno())
