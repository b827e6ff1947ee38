"""The router as a child process of the dashboard, so that drawing never delays a token.

It writes its log to a file and not into a pipe: a dashboard that hangs or is stopped must not make
the router wait. It ends when its standard input closes, however this process ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mvllm_router import itself
from mvllm_router.dashboard.log import Kept, Tail


class DidNotStart(Exception):
    """The router ended before it listened; `code` is its exit code, `said` what it printed."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(said)
        self.code = code
        self.said = said


@dataclass(frozen=True, slots=True)
class Announced:
    """What the router tells when it listens: its address, and the key of who has started it."""

    url: str
    key: str


class Child:
    """A router that runs as long as this process does, or longer only to finish requests."""

    def __init__(self, arguments: Sequence[str], log_file: str) -> None:
        """Start `router` with these arguments.

        Args:
            arguments: those of the command line.
            log_file: where the arguments or the configuration send its log, "" for nowhere.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="router-")
        folder = Path(self._folder.name)
        log = Path(log_file) if log_file else folder / "router.log"
        more = ["--announce", *([] if log_file else ["--log-file", str(log)])]
        self._said = folder / "stderr"
        self._kept = Kept(Tail(log), Tail(self._said))
        with self._said.open("wb") as stderr:
            self._process = subprocess.Popen(
                itself.command("mvllm_router", *arguments[:1], *more, *arguments[1:]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # what the terminal sends is for the dashboard
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def announced(self) -> Announced:
        """Wait until the router listens.

        Raises:
            DidNotStart: it ended before that.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise DidNotStart(code, self._said.read_text("utf-8", "replace"))
        told = json.loads(line)
        return Announced(told["url"], told["key"])

    @property
    def gone(self) -> int:
        """Return how many lines of its log are kept no more."""
        return self._kept.gone

    def lines(self) -> list[str]:
        """Return the last lines of its log, oldest first."""
        return self._kept.lines()

    def new_lines(self) -> list[str]:
        """Return the lines that have come since the last call of this or of `lines`."""
        return self._kept.read()

    def exit_code(self) -> int | None:
        """Return how it ended, None while it runs."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """Let it finish what runs, and end; a second time it ends at once."""
        if self._process.poll() is None:
            self._process.terminate()

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait for its end for so long; return its exit code, None where it still runs."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """Close its standard input, which stops it, and put its log away."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._folder.cleanup()
