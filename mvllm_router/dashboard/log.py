"""Follows logs: that of a router that the dashboard has started, those of a router's servers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from mvllm_router.dashboard.document import Document, number, texts
from mvllm_router.dashboard.latest import Latest

KEPT = 2000  # lines
_CHUNK = 256 * 1024  # bytes of one look: a log that runs away does not stop the screen
_FROM_END = 64 * 1024  # bytes of a file that was there before


class Log(Protocol):
    """A router's log, and whether it still runs."""

    @property
    def gone(self) -> int: ...

    def lines(self) -> list[str]: ...

    def exit_code(self) -> int | None: ...


class Tail:
    """The new lines of a file that grows, and that is put aside for a new one now and then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode: int | None = None
        self._place = 0
        self._rest = b""

    def read(self) -> list[str]:
        """Return the whole lines that have come since; none while there is no file."""
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                self._find_place(found.st_ino, found.st_size)
                file.seek(self._place)
                chunk = file.read(_CHUNK)
        except FileNotFoundError:
            return []
        self._place += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def _find_place(self, inode: int, size: int) -> None:
        if self._inode is None:
            self._place = max(0, size - _FROM_END)
        elif inode != self._inode or size < self._place:
            self._place, self._rest = 0, b""
        self._inode = inode


class Kept:
    """The last lines of some tails."""

    def __init__(self, *tails: Tail) -> None:
        self._tails = tails
        self._lines: Latest[str] = Latest(KEPT)

    def read(self) -> list[str]:
        """Return the lines that are new, and keep them."""
        new = [line for tail in self._tails for line in tail.read()]
        for line in new:
            self._lines.keep(line)
        return new

    @property
    def gone(self) -> int:
        """Return how many lines are kept no more."""
        return self._lines.gone

    def lines(self) -> list[str]:
        """Return all lines that are kept, oldest first."""
        self.read()
        return list(self._lines.entries)


class ServerLog:
    """What a server prints that the router has started; the router tells it, `why_not` if not."""

    def __init__(self, name: str) -> None:
        """Begin with nothing; `name` is that of the server."""
        self.name = name
        self.why_not = ""
        self.is_here = False  # the router has answered
        self._lines: Latest[str] = Latest(KEPT)
        self._newest = 0

    @property
    def path(self) -> str:
        """Return where the router tells what is new of it."""
        return f"/router/logs/{quote(self.name, safe='')}?after={self._newest}"

    def take(self, answer: Document) -> None:
        """Take in what the router has answered; one that was started anew counts anew."""
        self.why_not, self.is_here = "", True
        newest = int(number(answer, "newest") or 0)
        if newest < self._newest:
            self._lines.clear()
        for line in texts(answer, "lines"):
            self._lines.keep(line)
        self._newest = newest if newest >= self._newest else 0

    def refuse(self, why: str) -> None:
        """Keep why the router does not tell it."""
        self.why_not = why

    @property
    def gone(self) -> int:
        """Return how many lines are kept no more."""
        return self._lines.gone

    def lines(self) -> list[str]:
        """Return the last lines, oldest first."""
        return list(self._lines.entries)
