"""What a server prints: the last lines in memory, all of it in a file of bounded size."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO

KEPT = 1000  # lines in memory
_LONGEST = 2000  # characters of a line
# Bytes of a file, and how many older ones stay beside it.
_FILE_BYTES = 10 * 1024 * 1024
_OLD_FILES = 1
_HIDDEN = "***"
# Progress bars draw over themselves.
_END = re.compile(rb"[\r\n]+")


class Journal:
    """The log of one server, over all its starts. What is `secret` in it is hidden."""

    def __init__(self, path: Path, secret: str = "") -> None:
        """Begin to write to `path`, behind what is there.

        Raises:
            OSError: the file cannot be written.
        """
        self.path = path
        self.count = 0  # lines so far
        self._secret = secret
        self._lines: deque[str] = deque(maxlen=KEPT)
        self._rest = b""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file: IO[str] = path.open("a", encoding="utf-8")

    @property
    def last(self) -> str:
        """The last line, "" before the first."""
        return self._lines[-1] if self._lines else ""

    def feed(self, data: bytes) -> list[str]:
        """Take in what the server printed; return the lines that this completes."""
        *whole, self._rest = _END.split(self._rest + data)
        if len(self._rest) > _LONGEST:
            whole, self._rest = [*whole, self._rest], b""
        lines = [self._clean(line) for line in whole if line.strip()]
        self._keep(lines)
        return lines

    def say(self, text: str) -> None:
        """Add a line of the router's own, which ends an unfinished one."""
        self.feed(b"\n")
        self._keep([f"--- {text}"])

    def after(self, number: int) -> Sequence[str]:
        """Return the lines behind the first `number` of all, as far as they are kept."""
        missing = max(0, self.count - number)
        return list(self._lines)[max(0, len(self._lines) - missing) :]

    def close(self) -> None:
        self.feed(b"\n")
        self._file.close()

    def _clean(self, line: bytes) -> str:
        text = line.decode("utf-8", "replace").rstrip()[:_LONGEST]
        return text.replace(self._secret, _HIDDEN) if self._secret else text

    def _keep(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        self._lines.extend(lines)
        self.count += len(lines)
        self._file.write("\n".join(lines) + "\n")
        self._file.flush()
        if self._file.tell() > _FILE_BYTES:
            self._turn_over()

    def _turn_over(self) -> None:
        self._file.close()
        for number in range(_OLD_FILES, 0, -1):
            newer = self.path if number == 1 else _old(self.path, number - 1)
            newer.replace(_old(self.path, number))
        self._file = self.path.open("a", encoding="utf-8")


def _old(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
