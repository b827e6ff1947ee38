"""Ends the router's servers when the router is gone, however it ended.

A process of its own that hears of each server through its standard input, `+123` when the process
group 123 has begun and `-123` when it is over. Its input ends with the router, also when that is
killed, and then it ends all groups that are left. It imports hardly more than the standard
library: it is small, and there all the time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection

from mvllm_router import itself

# Seconds for servers to end by themselves, and between two looks at them.
_GRACE = 5.0
_TICK = 0.1


class Guard:
    """The router's end of it."""

    def __init__(self, record: Callable[[Collection[int]], None]) -> None:
        """Start it. `record` is told of all groups that are watched, at each change."""
        self._groups: set[int] = set()
        self._record = record
        self._process = self._start()

    def watch(self, group: int) -> None:
        """Let the process group be ended with the router."""
        self._groups.add(group)
        self._record(self._groups)
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """Leave the process group alone: it is over."""
        self._groups.discard(group)
        self._record(self._groups)
        self._tell(f"-{group}\n")

    def look(self) -> None:
        """See that it is there: one who was killed gets a successor."""
        if self._process.poll() is not None:
            self._renew()

    def close(self) -> None:
        """End the guard; it ends what it still watches."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        if not self._wrote(line):
            self._renew()

    def _renew(self) -> None:
        """Start a successor, which is told all of it."""
        self.close()
        self._process = self._start()
        self._wrote("".join(f"+{group}\n" for group in sorted(self._groups)))

    def _wrote(self, text: str) -> bool:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text.encode())
        except BrokenPipeError:
            return False
        return True

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            itself.command(__name__),
            stdin=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the router
        )


def is_there(group: int) -> bool:
    """Tell whether any process of a group is left."""
    return signalled(group, 0)


def signalled(group: int, number: int) -> bool:
    """Send a signal to a process group; return whether there was anybody to get it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS says so of those that have ended
        return False
    return True


def main() -> None:
    """Keep the list until the input ends, then end what stands in it."""
    # Who stops a whole service tells everybody in it; this one ends last.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    left = {group for group in groups if signalled(group, signal.SIGTERM)}
    end = time.monotonic() + _GRACE
    while left and time.monotonic() < end:
        time.sleep(_TICK)
        left = {group for group in left if is_there(group)}
    for group in left:
        signalled(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
