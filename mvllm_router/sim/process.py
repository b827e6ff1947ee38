"""What a child process needs: to say that it is ready, to hear its parent, to end with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from typing import Any

_CHUNK = 65536


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a program's coroutine, on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:  # Windows
        asyncio.run(work)
    else:
        uvloop.run(work)


def announce(value: dict[str, Any]) -> None:
    """Print one JSON line on stdout, at once."""
    print(json.dumps(value), flush=True)


def stop_on_signals(stop: asyncio.Event) -> None:
    """Set the event on SIGTERM and SIGINT. Call it in the main thread of a running loop."""
    loop = asyncio.get_running_loop()

    def on_signal(number: int, frame: object) -> None:
        loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)


class ParentPipe:
    """The lines on stdin, and its end, which comes also when the parent was killed.

    A thread reads, because not every system lets an event loop wait for stdin. It reads
    from the descriptor, whose lock nobody misses when the process ends meanwhile.
    """

    def __init__(self, ended: asyncio.Event) -> None:
        """`ended` is set at the end of stdin. Needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        threading.Thread(target=self._read, name="parent-pipe", daemon=True).start()

    async def line(self) -> str | None:
        """The next line, None at the end."""
        return await self._lines.get()

    def _read(self) -> None:
        rest = b""
        while chunk := os.read(sys.stdin.fileno(), _CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._tell(line.decode(errors="replace"))
        self._tell(None)

    def _tell(self, line: str | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._take, line)
        except RuntimeError:
            return  # the loop is closed: the process is ending anyway

    def _take(self, line: str | None) -> None:
        self._lines.put_nowait(line)
        if line is None:
            self._ended.set()
