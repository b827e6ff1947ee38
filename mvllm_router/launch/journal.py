"""What a server prints: the last lines in memory, all of it in a file of bounded size."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)

KEPT = 1000  # lines in memory
_LONGEST = 2000  # characters of a line
# Bytes of a file; one older one stays beside it.
_FILE_BYTES = 10 * 1024 * 1024
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
        self.secret = secret
        self._lines: deque[str] = deque(maxlen=KEPT)
        self._rest = b""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._open()
        self._is_written = True  # the last line has come to the disk

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
        return text.replace(self.secret, _HIDDEN) if self.secret else text

    def _keep(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        self._lines.extend(lines)
        self.count += len(lines)
        try:
            self._write("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
            self._is_written = True
        except OSError as error:  # a full disk must not keep the server from printing
            if self._is_written:
                log.warning("the log %s cannot be written: %s", self.path, error.strerror)
            self._is_written = False

    def _write(self, data: bytes) -> None:
        self._size += self._file.write(data) or 0
        if self._size > _FILE_BYTES:
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
            self._file.close()
            self._open()

    def _open(self) -> None:
        # Without a buffer: what cannot be written is lost, and does not pile up.
        self._file = self.path.open("ab", buffering=0)
        self._size = self._file.tell()
